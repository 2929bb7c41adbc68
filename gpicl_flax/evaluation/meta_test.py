"""Measures accuracy and loss at every position of sequences that are made of test examples."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, cast

import gin
import jax
import numpy as np
import scipy

from gpicl_flax.bindings.kinds import Count, check_settings
from gpicl_flax.errors import UsageError
from gpicl_flax.models import SequenceModel
from gpicl_flax.tasks import keys, loader
from gpicl_flax.tasks.datasets.base_dataset import BaseDataset
from gpicl_flax.training import partitioning
from gpicl_flax.training.step import sequence_losses
from gpicl_flax.training.task_batches import SplitOnMesh, TaskBatches

CONFIDENCE = 0.95


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
      at_checkpoints: meta-test also at every checkpoint_period of the training, rather than only at its end.

    Raises:
      UsageError: a number is not positive, a base dataset is named twice, or the tasks do not all have equally many
        sequences.
    """

    base_datasets: Sequence[str] = ()
    num_sequences: Count = 512
    sequences_per_task: Count = 1
    batch_size: Count = 128
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
    datasets: Sequence[BaseDataset],
    settings: MetaTest,
    seed: int,
) -> list[dict[str, Any]]:
    """Computes learning curves on seen and unseen tasks of each base dataset; a pure function of its arguments.

    Seen tasks are replayed as they were trained on, with the identity permutation where they are biased. Unseen tasks
    always permute their labels. As in the paper, "seen" tasks are the first ids. If the number of tasks exceeds what
    training draws, some of them were never seen. On a base dataset other than the training one, a "seen" task is a seen
    projection and permutation of unseen inputs (the columns of Fig 13). Gram projections cannot be replayed, so there
    is no such curve.

    Args:
      model: the model.
      params: its parameters.
      task_batches: those of the run, on the mesh to test on.
      datasets: the base datasets to test on.
      settings: the settings of the meta-test.
      seed: the seed of the run.

    Returns:
      One dict for each curve: base_dataset and its fingerprint, tasks ('seen' or 'unseen'), num_sequences, and lists
        over the T positions of the means over sequences, `accuracy` and `loss` (nats). Each mean has the ends of its
        95% confidence interval, `_low` and `_high`: Wilson's interval for accuracies, Student's t for losses.
    """
    tasks = task_batches.tasks
    evaluate = _make_evaluate(model, task_batches)  # pyright: ignore[reportArgumentType]  modules have a hash
    num_tasks = settings.num_sequences // settings.sequences_per_task
    kinds = {"unseen": (tasks.unseen_task_ids(num_tasks), 1.0)}
    if task_batches.projection.replayable:
        kinds = {"seen": (tasks.seen_task_ids(num_tasks), tasks.permute_labels_prob)} | kinds
    curves = []
    for dataset in datasets:
        test = task_batches.put_on_mesh(dataset, dataset.test)
        # Seen and unseen tasks have the same examples, so that only the tasks make a difference.
        size = settings.num_sequences, tasks.sequence_length, len(test.split), test.split.group_size
        indices = loader.draw_example_indices(np.random.default_rng(seed), *size)
        for kind, (task_ids, permute_labels_prob) in kinds.items():
            evaluate_batch = functools.partial(
                evaluate, params, test.data, np.uint32(seed), np.float32(permute_labels_prob)
            )
            rows = {"task_ids": np.repeat(task_ids, settings.sequences_per_task), "example_indices": indices}
            losses, correct = _in_batches(evaluate_batch, rows, test, settings.batch_size, task_batches.mesh)
            curves.append(
                {
                    "base_dataset": dataset.name,
                    "fingerprint": dataset.fingerprint,
                    "tasks": kind,
                    "num_sequences": settings.num_sequences,
                }
                | _accuracy_curve(correct)
                | _loss_curve(losses)
            )
    return curves


@functools.lru_cache(maxsize=4)  # the members of a stack and many points of a sweep share one program
def _make_evaluate(model: SequenceModel, task_batches: TaskBatches):
    @jax.jit
    def evaluate(params, data, seed, permute_labels_prob, start, batch):
        inputs, labels = task_batches.make_sequences(seed, batch, data, permute_labels_prob)
        rngs = {"learner": jax.random.fold_in(keys.learner_key(seed), start)}
        logits = cast(jax.Array, model.apply({"params": params}, inputs, labels, rngs=rngs))
        results = sequence_losses(logits, labels)
        return partitioning.constrain_replicated(task_batches.mesh, results)

    return evaluate


def _in_batches(
    evaluate: Callable, rows: loader.Batch, test: SplitOnMesh, batch_size: int, mesh: jax.sharding.Mesh
) -> tuple[np.ndarray, np.ndarray]:
    """Maps `evaluate` over batches of rows. The last batch is padded with its first row, so that one program fits all.

    Args:
      evaluate: takes the number of a batch's first row, and the batch.
    """
    num_rows, shards = len(rows["task_ids"]), partitioning.batch_shards(mesh)
    batch_size = -(-min(batch_size, num_rows) // shards) * shards
    results = []
    for start in range(0, num_rows, batch_size):
        numbers = np.arange(start, start + batch_size)
        numbers = np.where(numbers < num_rows, numbers, start)
        own = numbers[partitioning.local_rows(mesh, batch_size)]
        batch = partitioning.shard_batch(mesh, test.complete({name: x[own] for name, x in rows.items()}))
        results.append(jax.device_get(evaluate(np.uint32(start), batch)))
    losses, correct = (np.concatenate(x)[:num_rows] for x in zip(*results, strict=True))
    return losses, correct


def _accuracy_curve(correct: np.ndarray) -> dict[str, list[float]]:
    """Returns the curves over T, given correct [n, T] bool."""
    intervals = [
        scipy.stats.binomtest(int(hits), len(correct)).proportion_ci(CONFIDENCE, method="wilson")
        for hits in correct.sum(axis=0)
    ]
    return {
        "accuracy": correct.mean(axis=0).tolist(),
        "accuracy_low": [float(interval.low) for interval in intervals],
        "accuracy_high": [float(interval.high) for interval in intervals],
    }


def _loss_curve(losses: np.ndarray) -> dict[str, list[float]]:
    """Returns the curves over T, given losses [n, T]. With one sequence there is no interval: its ends are the mean."""
    losses = losses.astype(np.float64)
    mean = losses.mean(axis=0)
    margin = np.zeros_like(mean)
    if len(losses) > 1:
        margin = scipy.stats.t.ppf((1 + CONFIDENCE) / 2, len(losses) - 1) * scipy.stats.sem(losses, axis=0)
    low, high = mean - margin, mean + margin
    return {"loss": mean.tolist(), "loss_low": low.tolist(), "loss_high": high.tolist()}
