"""A learner meta-tested, whose run may have no folder any more."""

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
    """Meta-tests a learner, whose run may have no folder any more.

    It does so as its run was meta-tested, or on base datasets and a number of sequences of a choice.

    Returns:
      What `evaluate` would write.

    Raises:
      UsageError: a base dataset is missing or does not fit.
    """
    run, settings = learner.run, learner.run.meta_test
    if num_sequences is not None:
        settings = dataclasses.replace(settings, num_sequences=num_sequences, sequences_per_task=1)
    datasets = [run.tasks.load(name) for name in base_datasets or run.test_names]
    mesh = MeshShape(data=1).build()
    task_batches = TaskBatches(run.tasks, learner.projection_spec, mesh)
    with jax.set_mesh(mesh), run.precision():
        curves = meta_test(run.model, learner.params, task_batches, datasets, settings, run.seed)
    return {"step": learner.run_info["steps"], "curves": curves}
