"""Diagnostics: why a run stays on its plateau, and when it learns to learn.

They are measured along training on one fixed batch of unseen tasks, made from training examples, with all labels
permuted. This does not depend on the tasks that the run trains on, so runs with different biases, curricula or numbers
of tasks can be compared.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import gin
import jax
import jax.numpy as jnp
import numpy as np
import optax

from gpicl_flax.bindings.kinds import Count, check_settings
from gpicl_flax.models import SequenceModel
from gpicl_flax.models.sequence_model import QUERY_KEYS, collect_query_key
from gpicl_flax.references import by_family
from gpicl_flax.tasks.families import TaskFamily
from gpicl_flax.training import partitioning, positions
from gpicl_flax.training.probes import attention_stats, fixed_batch
from gpicl_flax.training.state import vmap_members
from gpicl_flax.training.task_batches import SplitOnMesh, TaskBatches


@gin.configurable
@dataclasses.dataclass(frozen=True)
class Diagnostics:
    """When a run is diagnosed, and on how many sequences.

    The results go to the rows of metrics.jsonl, under 'diagnostics'.

    A row has the loss on unseen tasks, the score at the last position (the accuracy, or for numbers the squared error),
    and the norms of that loss's gradient by part of the model. For a model with queries and keys it also has, by layer
    and head, the results of `attention_stats`; for numbers only the matching scores. Under 'distances' it has the mean
    distance of the model's predictions from those of each reference (see `Reference.distance`), so that a run shows
    when it moves from one to another.

    Attributes:
      period: steps between two diagnoses, which come at the end of a dispatch.
      num_sequences: sequences of unseen tasks for one diagnosis. They are rounded up to a multiple that the mesh
        divides, but never exceed the number that a training step has in memory at once.
      references: names of references, see `references.by_family`; None: all of the family, but none where tasks are
        made from a base dataset.
      class_accuracies: also measure `in_context_accuracy` and `in_weights_accuracy`, see `probes.class_accuracies`.
        They need tasks with classes of fixed labels.
    """

    period: Count = 100
    num_sequences: Count = 32
    references: Sequence[str] | None = None
    class_accuracies: bool = False

    def __post_init__(self):
        check_settings(self)

    def sequences_at_once(self, task_batch_size: int, accumulation: int) -> int:
        """Returns `num_sequences`, or fewer if a training step has fewer in memory at once."""
        return min(self.num_sequences, task_batch_size // accumulation)


def make_diagnose(
    model: SequenceModel,
    task_batches: TaskBatches,
    train: SplitOnMesh,
    seeds: Sequence[int],
    num_sequences: int,
    numbers: Any = (),
    families: Sequence[TaskFamily] = (),
    references: Sequence[str] | None = (),
) -> Callable[[Any], dict[str, Any]]:
    """Makes a function of the parameters [S, ...] of a stack that returns its members' diagnostics, arrays [S, ...].

    Args:
      model: the model of all members.
      task_batches: the batches of any member.
      train: the training split.
      seeds: those of the members.
      num_sequences: sequences of unseen tasks for each member, rounded up to a multiple that the mesh divides.
      numbers: those of the members' tasks, arrays [S], see `TaskFamily.numbers`.
      families: the tasks of each member, which have references of the same names; empty: those of `task_batches`.
      references: the names of those to measure distances from; None: see `Diagnostics`.
    """
    tasks, mesh, num_members = task_batches.tasks, task_batches.mesh, task_batches.num_members
    count, sampler = fixed_batch.num_rows(task_batches, num_sequences), tasks.sampler(train.split)
    drawn = [sampler(np.random.default_rng(seed), count, tasks.sequence_length) for seed in seeds]
    batches = [{"task_ids": tasks.unseen_task_ids(count)} | own for own in drawn]
    on_mesh = fixed_batch.put_on_mesh(task_batches, train, batches)
    own_seeds, own_numbers = partitioning.shard_members(mesh, (np.array(seeds, np.uint32), numbers))
    kind = tasks.targets
    chosen = by_family.chosen(tasks, references, "Diagnostics.references")
    # The batch is fixed, and so is what references predict on it.
    inputs_of_members = own_seeds, own_numbers, train.data, on_mesh
    families = families or [tasks] * num_members
    beside = _predict_references(task_batches, families, tuple(chosen), inputs_of_members) if chosen else {}

    def diagnose(params, seed, numbers, beside, data, batch):
        batch = jax.tree.map(lambda x: x[0], batch)  # of the only step
        sequences = task_batches.make_sequences(seed, batch, data, tasks.unseen_numbers(numbers))
        inputs, labels, _, counted = sequences

        def loss_fn(params):
            predictions, kept = model.apply(
                {"params": params}, inputs, sequences.shown_targets(labels), mutable=[QUERY_KEYS]
            )
            measured = kind.measure(predictions, labels)
            score = positions.last_of(measured[kind.score], counted).mean()
            distances = {
                name: distance.mean(where=counted)
                for name, reference in chosen.items()
                for distance in reference.distance(kind, beside[name], predictions).values()
            }
            return measured["loss"].mean(where=counted), (score, distances, kept.get(QUERY_KEYS, {}))

        (loss, (score, distances, shown)), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
        norms = {name: optax.tree.norm(part) for name, part in _parts(grads).items()}
        return {
            "unseen_loss": loss,
            f"unseen_{kind.score}_last": score,
            "grad_norms": norms,
            **({"distances": distances} if distances else {}),
        } | _compare(shown, inputs, labels if kind.num_classes else None)

    stacked = vmap_members(diagnose, num_members, in_axes=(0, 0, 0, 0, None, 1))
    program = jax.jit(lambda *arguments: partitioning.constrain_replicated(mesh, stacked(*arguments)))
    return lambda params: program(params, own_seeds, own_numbers, beside, train.data, on_mesh)


def _predict_references(
    task_batches: TaskBatches, families: Sequence[TaskFamily], names: tuple[str, ...], inputs_of_members: tuple
) -> dict[str, jax.Array]:
    """Returns the predictions [S, B, ...] of the references of each member, whose tasks may differ in number."""

    # Members with equal families share a program.
    @functools.partial(jax.jit, static_argnums=0)
    def predict(family, index, seeds, numbers, data, batch):
        seed, own = seeds[index], jax.tree.map(lambda x: x[index], numbers)
        rows = jax.tree.map(lambda x: x[0, index], batch)  # of the only step
        sequences = task_batches.make_sequences(seed, rows, data, family.unseen_numbers(own))
        references = by_family.chosen(family, names, "Diagnostics.references")
        return {name: reference.predict(seed, sequences) for name, reference in references.items()}

    members = [predict(family, np.int32(index), *inputs_of_members) for index, family in enumerate(families)]
    return jax.jit(lambda *each: jax.tree.map(lambda *x: jnp.stack(x), *each))(*members)


def _parts(grads) -> dict[str, list[jax.Array]]:
    """Returns the arrays of each part of the model, such as 'block_0/query': its kernel and its bias."""
    parts = {}
    for path, array in jax.tree_util.tree_leaves_with_path(grads):
        names = [entry.key for entry in path]
        parts.setdefault("/".join(names[:-1]) or names[-1], []).append(array)
    return parts


def _compare(shown, inputs: jax.Array, labels: jax.Array | None) -> dict[str, jax.Array]:
    """Returns the statistics of the layers that recorded their queries and keys, [layers, heads].

    Without labels, because targets are numbers, there are none about attention to a class.
    """
    pairs = collect_query_key(shown)
    if not pairs:
        return {}
    results = {"matching_score": jnp.stack([attention_stats.matching_score(*pair, inputs) for pair in pairs.values()])}
    attention = [pair for layer, pair in pairs.items() if layer[-1] == "attention"]
    if attention and labels is not None:
        masses = [attention_stats.attention_mass(*pair, labels) for pair in attention]
        results["same_class_attention"] = jnp.stack([mass.same_class for mass in masses])
        results["previous_token_attention"] = jnp.stack([mass.previous_token for mass in masses])
        results["same_class_uniform"] = masses[0].same_class_uniform
    return results
