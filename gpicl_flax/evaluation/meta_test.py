"""Measures accuracy and loss at every position of sequences that are made of test examples."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, cast

import gin
import jax
import numpy as np

from gpicl_flax.bindings.kinds import Count, check_settings
from gpicl_flax.errors import UsageError
from gpicl_flax.evaluation.batches import in_batches
from gpicl_flax.evaluation.curves import mean_curves
from gpicl_flax.evaluation.host_references import host_curves
from gpicl_flax.models import SequenceModel
from gpicl_flax.references import by_family
from gpicl_flax.references.on_host import host_references
from gpicl_flax.tasks import keys
from gpicl_flax.tasks.families.data import TaskData
from gpicl_flax.training import partitioning
from gpicl_flax.training.task_batches import TaskBatches


@gin.configurable
@dataclasses.dataclass(frozen=True)
class MetaTest:
    """The settings of a run's meta-test.

    Attributes:
      base_datasets: names as in TaskDistribution.base_dataset; empty: the one trained on.
      num_sequences: sequences for each base dataset, for seen and again for unseen tasks.
      sequences_per_task: how many consecutive sequences share a task; 16 in Table 2. The intervals of a curve treat
        sequences as independent, so with more than one they ignore the differences between tasks.
      batch_size: sequences evaluated at once, approximately: it is rounded up to a multiple that the mesh divides.
      references: names of references to measure beside the model, see `references.by_family`; None: all of the family,
        but none where tasks are made from a base dataset. Those that run on the host (see `references.on_host`) are
        measured only if they are named.
      at_checkpoints: meta-test also at every checkpoint_period of the training, rather than only at its end.

    Raises:
      UsageError: a number is not positive, a base dataset is named twice, or the tasks do not all have equally many
        sequences.
    """

    base_datasets: Sequence[str] = ()
    num_sequences: Count = 512
    sequences_per_task: Count = 1
    batch_size: Count = 128
    references: Sequence[str] | None = None
    at_checkpoints: bool = False

    def __post_init__(self):
        check_settings(self)
        if self.num_sequences % self.sequences_per_task:
            raise UsageError(
                f"MetaTest.num_sequences = {self.num_sequences} is not a multiple of "
                f"MetaTest.sequences_per_task = {self.sequences_per_task}"
            )
        twice = [name for index, name in enumerate(self.base_datasets) if name in self.base_datasets[:index]]
        if twice:
            raise UsageError(f"MetaTest.base_datasets names {twice[0]!r} twice")


def meta_test(
    model: SequenceModel,
    params: Any,
    task_batches: TaskBatches,
    datasets: Sequence[TaskData],
    settings: MetaTest,
    seed: int,
) -> list[dict[str, Any]]:
    """Computes learning curves on seen and unseen tasks of each base dataset; a pure function of its arguments.

    Seen tasks are replayed as they were trained on, with the identity permutation where they are biased. Unseen tasks
    always permute their labels. As in the paper, "seen" tasks are the first ids. If the number of tasks exceeds what
    training draws, some of them were never seen. On a base dataset other than the training one, a "seen" task is a seen
    projection and permutation of unseen inputs (the columns of Fig 13). Gram projections cannot be replayed, so there
    is no such curve. Tasks without a base dataset have one pair of curves, under the name of the family.

    Args:
      model: the model.
      params: its parameters.
      task_batches: those of the run, on the mesh to test on.
      datasets: the base datasets to test on.
      settings: the settings of the meta-test.
      seed: the seed of the run.

    Returns:
      One dict for each curve: base_dataset and its fingerprint, tasks ('seen' or 'unseen'), num_sequences, and lists
        over the T positions of the means over sequences of what `Targets.measure` returns: `loss`, and for classes
        `accuracy`. Each mean has the ends of its 95% confidence interval, `_low` and `_high`: Wilson's interval for
        accuracies, Student's t for others. If some positions never count, the lists are over the others, which
        `positions` names. Where there are references, `references` has such curves of each by its name, as far as it
        has them, and the `distance` of the model's predictions from its own (see `Reference`). Those on the host are
        over a few positions and sequences, see `host_curves`.
    """
    tasks = task_batches.tasks
    names = settings.references
    chosen = by_family.chosen(tasks, names, "MetaTest.references", with_host=True)
    on_host = {name: own for name, own in host_references(tasks).items() if name in (names or ())}
    known_tasks = tasks.num_tasks if chosen else None
    evaluate = _make_evaluate(model, task_batches, known_tasks, tuple(chosen))  # pyright: ignore[reportArgumentType]  modules have a hash
    num_tasks = settings.num_sequences // settings.sequences_per_task
    numbers = tasks.numbers()
    kinds = {"unseen": (tasks.unseen_task_ids(num_tasks), tasks.unseen_numbers(numbers))}
    if tasks.can_replay(task_batches.drawing):
        kinds = {"seen": (tasks.seen_task_ids(num_tasks), numbers)} | kinds
    curves = []
    for dataset in datasets:
        test = task_batches.put_on_mesh(dataset, dataset.test)
        # Seen and unseen tasks have the same examples, so that only the tasks make a difference.
        drawn = tasks.sampler(test.split)(np.random.default_rng(seed), settings.num_sequences, tasks.sequence_length)
        for kind, (task_ids, own_numbers) in kinds.items():
            own_numbers = jax.tree.map(np.float32, own_numbers)
            evaluate_batch = functools.partial(evaluate, params, test.data, np.uint32(seed), own_numbers)
            rows = {"task_ids": np.repeat(task_ids, settings.sequences_per_task)} | drawn
            measured, beside, counted = in_batches(evaluate_batch, rows, test, settings.batch_size, task_batches.mesh)
            references = {name: mean_curves(own, counted) for name, own in beside.items()}
            if on_host:
                references |= host_curves(on_host, task_batches, test, rows, seed, own_numbers)
            curves.append(
                {
                    "base_dataset": dataset.name,
                    "fingerprint": dataset.fingerprint,
                    "tasks": kind,
                    "num_sequences": settings.num_sequences,
                }
                | mean_curves(measured, counted)
                | ({"references": references} if references else {})
            )
    return curves


@functools.lru_cache(maxsize=4)  # the members of a stack and many points of a sweep share one program
def _make_evaluate(model: SequenceModel, task_batches: TaskBatches, known_tasks: int | None, names: tuple[str, ...]):
    """Returns a program.

    Args:
      known_tasks: the number of tasks, which the equality of `task_batches` leaves out, if references depend on it.
      names: those of the references.
    """
    tasks, kind = task_batches.tasks, task_batches.tasks.targets
    references = by_family.chosen(tasks, names, "MetaTest.references")

    @jax.jit
    def evaluate(params, data, seed, numbers, start, batch):
        sequences = task_batches.make_sequences(seed, batch, data, numbers)
        shown = sequences.shown_targets(sequences.targets)
        rngs = {"learner": jax.random.fold_in(keys.learner_key(seed), start)}
        predictions = cast(jax.Array, model.apply({"params": params}, sequences.inputs, shown, rngs=rngs))
        measured, beside = kind.measure(predictions, sequences.targets), {}
        for name, reference in references.items():
            own = reference.predict(seed, sequences)
            beside[name] = reference.measure(kind, own, sequences.targets)
            beside[name] |= reference.distance(kind, own, predictions)
        return partitioning.constrain_replicated(task_batches.mesh, (measured, beside, sequences.counted))

    return evaluate
