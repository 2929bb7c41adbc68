"""The contents of run.json, which describes a run to readers of its folder."""

import math
from typing import Any

import jax

import gpicl_flax
from gpicl_flax.runs.run import Run
from gpicl_flax.tasks.datasets.base_dataset import BaseDataset
from gpicl_flax.tasks.projections.spec import ProjectionSpec


def run_info(run: Run, dataset: BaseDataset, projection: ProjectionSpec, mesh: jax.sharding.Mesh) -> dict[str, Any]:
    """Returns run.json for a run that trains on `dataset`, all plain JSON."""
    offset, scale = dataset.normalization(run.tasks.normalize)
    return {
        "gpicl_flax": gpicl_flax.__version__,
        "jax": jax.__version__,
        "labels": dict(run.labels),
        "model": type(run.model).__name__,
        **run.sizes(),
        "num_classes": run.tasks.num_classes,
        "sequence_length": run.tasks.sequence_length,
        "task_batch_size": run.tasks.task_batch_size,
        "num_tasks": run.tasks.num_tasks,
        "permute_labels_prob": run.tasks.permute_labels_prob,
        "steps": run.training.steps,
        "seed": run.seed,
        "base_dataset": {
            "name": dataset.name,
            "train_examples": len(dataset.train),
            "test_examples": len(dataset.test),
            "mean": dataset.mean,
            "std": dataset.std,
            "fingerprint": dataset.fingerprint,
        },
        "input_rms": math.hypot(dataset.mean - offset, dataset.std) / scale,
        "projection": projection.as_run_info(),
        "mesh": dict(mesh.shape),
        "device": mesh.devices.flat[0].device_kind,
    }


def read_projection(info: dict[str, Any]) -> ProjectionSpec | None:
    """Returns how a run drew its projections; None for a run of an older version, which drew different tasks."""
    return ProjectionSpec.from_run_info(info["projection"]) if "projection" in info else None
