"""Meta-tests a learner, whose run may not have a folder any more."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax

from gpicl_flax.evaluation.meta_test import meta_test
from gpicl_flax.learners.learner import Learner
from gpicl_flax.training.partitioning import MeshShape
from gpicl_flax.training.task_batches import TaskBatches


def evaluate_learner(
    learner: Learner, base_datasets: Sequence[str] | None = None, num_sequences: int | None = None
) -> dict[str, Any]:
    """Meta-tests a learner, whose run may not have a folder any more.

    It uses the settings of its run, or other base datasets and another number of sequences.

    Args:
      learner: the learner.
      base_datasets: names; None: those of its run.
      num_sequences: sequences for each base dataset, each with its own task; None: as in its run.

    Returns:
      The content of the file that `evaluate` would write.

    Raises:
      UsageError: a base dataset is missing or does not fit.
    """
    run, settings = learner.run, learner.run.meta_test
    if num_sequences is not None:
        settings = dataclasses.replace(settings, num_sequences=num_sequences, sequences_per_task=1)
    datasets = [run.tasks.load(name) for name in base_datasets or run.test_names]
    mesh = MeshShape(data=1).build()
    task_batches = TaskBatches(run.tasks, learner.drawing, mesh)
    with jax.set_mesh(mesh), run.precision():
        curves = meta_test(run.model, learner.params, task_batches, datasets, settings, run.seed)
    return {"step": learner.run_info["steps"], "curves": curves}
