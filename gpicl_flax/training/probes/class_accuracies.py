"""Tells where a run knows classes from: the context, or its weights (Chan et al. 2022, arXiv 2205.05055).

Both accuracies are those of the last position among all C classes, on a fixed batch that is made from training
examples without label noise, whatever the distribution that the run trains on:

- `in_context_accuracy`: tasks that no training run draws, none of whose classes is fixed, so that the weights know no
  label. Half of the context is of the query's class and half of one other class. Chance between these two is 1/2, and
  1/C without any learning.
- `in_weights_accuracy`: training tasks, a query of a class that is the same in all tasks, and a context of the other
  classes, so that only the weights know its label. Chance is 1/C; whoever answers with a label of the context has 0.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, cast

import jax
import numpy as np

from gpicl_flax.errors import UsageError
from gpicl_flax.models import SequenceModel
from gpicl_flax.tasks.families import TaskFamily
from gpicl_flax.tasks.families.class_axes import ClassAxes
from gpicl_flax.training import partitioning
from gpicl_flax.training.probes import fixed_batch
from gpicl_flax.training.state import vmap_members
from gpicl_flax.training.task_batches import SplitOnMesh, TaskBatches

IN_CONTEXT, IN_WEIGHTS = "in_context_accuracy", "in_weights_accuracy"


def check(tasks: TaskFamily) -> ClassAxes:
    """Returns the tasks; raises UsageError if there are no such accuracies of them."""
    setting, name = "Diagnostics.class_accuracies", tasks.gin_name
    if not isinstance(tasks, ClassAxes):
        raise UsageError(f"{setting} = True: {name} has no classes of fixed labels; set it to False")
    if not tasks.num_fixed:
        raise UsageError(f"{setting} = True needs classes of fixed labels: set {name}.fixed_labels above 0")
    if tasks.sequence_length < 3 or tasks.targets.num_classes < 2:
        raise UsageError(
            f"{setting} = True needs {name}.sequence_length of at least 3 and {name}.num_classes of at least 2, not "
            f"{tasks.sequence_length} and {tasks.targets.num_classes}"
        )
    if not tasks.can_replay(tasks.assumed_drawing()):
        raise UsageError(
            f"{setting} = True needs training tasks that can be drawn again: a bounded {name}.num_tasks, or "
            f"{name}.projection = 'span'"
        )
    return tasks


def two_way_classes(rng: np.random.Generator, num_sequences: int, length: int, num_classes: int) -> np.ndarray:
    """Returns classes [B, T] int32: half of the context has the query's class, half one other class.

    Where T - 1 is odd, the other class has one more. The order of the context is random.
    """
    query = rng.integers(num_classes, size=(num_sequences, 1))
    other = (query + rng.integers(1, num_classes, size=(num_sequences, 1))) % num_classes
    is_query = np.broadcast_to(np.arange(length - 1) < (length - 1) // 2, (num_sequences, length - 1))
    context = np.where(rng.permuted(is_query, axis=1), query, other)
    return np.concatenate([context, query], axis=1).astype(np.int32)


def absent_query_classes(
    rng: np.random.Generator, num_sequences: int, length: int, num_classes: int, num_fixed: int
) -> np.ndarray:
    """Returns classes [B, T] int32: the query's is uniform among the fixed ones, those of the context among the others.

    The others are all classes except for that of the query.
    """
    query = rng.integers(num_fixed, size=(num_sequences, 1))
    context = (query + rng.integers(1, num_classes, size=(num_sequences, length - 1))) % num_classes
    return np.concatenate([context, query], axis=1).astype(np.int32)


def make_class_accuracies(
    model: SequenceModel,
    task_batches: TaskBatches,
    train: SplitOnMesh,
    seeds: Sequence[int],
    num_sequences: int,
    numbers: Any,
    families: Sequence[TaskFamily],
) -> Callable[[Any], dict[str, jax.Array]]:
    """Makes a function of the parameters [S, ...] of a stack that returns its members' accuracies, arrays [S].

    Args:
      model: the model of all members.
      task_batches: the batches of any member.
      train: the training split.
      seeds: those of the members.
      num_sequences: sequences of each accuracy for each member, rounded up to a multiple that the mesh divides.
      numbers: those of the members' tasks, arrays [S], see `TaskFamily.numbers`.
      families: the tasks of each member.
    """
    tasks, count = check(families[0]), fixed_batch.num_rows(task_batches, num_sequences)
    shape = count, tasks.sequence_length, tasks.targets.num_classes

    def batch(kind: str, family: ClassAxes, seed: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng([seed, kind == IN_WEIGHTS])
        if kind == IN_CONTEXT:
            ids, classes = family.unseen_task_ids(count), two_way_classes(rng, *shape)
        else:
            ids, classes = family.seen_task_ids(count), absent_query_classes(rng, *shape, family.num_fixed)
        return {"task_ids": ids} | family.batch_of_classes(train.split, rng, classes)

    kinds = {
        IN_CONTEXT: dataclasses.replace(tasks, label_noise=0.0, fixed_labels=0.0),
        IN_WEIGHTS: dataclasses.replace(tasks, label_noise=0.0),
    }
    own = partitioning.shard_members(task_batches.mesh, (np.array(seeds, np.uint32), numbers))
    calls = {}
    for kind, family in kinds.items():
        members = [batch(kind, check(each), seed) for each, seed in zip(families, seeds, strict=True)]
        on_mesh = fixed_batch.put_on_mesh(task_batches, train, members)
        program = _program(model, dataclasses.replace(task_batches, tasks=family), is_unseen=kind == IN_CONTEXT)
        calls[kind] = program, (*own, train.data, on_mesh)
    return lambda params: {kind: program(params, *inputs) for kind, (program, inputs) in calls.items()}


def _program(model: SequenceModel, task_batches: TaskBatches, is_unseen: bool) -> Callable[..., jax.Array]:
    """Returns a program: the accuracies [S] at the last position of a batch of unseen, or of training tasks."""
    tasks, mesh = task_batches.tasks, task_batches.mesh

    def accuracy(params, seed, numbers, data, batch):
        numbers = tasks.unseen_numbers(numbers) if is_unseen else numbers
        sequences = task_batches.make_sequences(seed, jax.tree.map(lambda x: x[0], batch), data, numbers)
        predictions = cast(jax.Array, model.apply({"params": params}, sequences.inputs, sequences.targets))
        return tasks.targets.measure(predictions, sequences.targets)["accuracy"][:, -1].mean()

    stacked = vmap_members(accuracy, task_batches.num_members, in_axes=(0, 0, 0, None, 1))
    return jax.jit(lambda *arguments: partitioning.constrain_replicated(mesh, stacked(*arguments)))
