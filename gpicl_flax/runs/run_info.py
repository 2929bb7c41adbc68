"""The contents of run.json, which describes a run to readers of its folder."""

from collections.abc import Hashable
from typing import Any

import jax

import gpicl_flax
from gpicl_flax.runs.run import Run
from gpicl_flax.tasks.families.data import TaskData


def run_info(run: Run, dataset: TaskData, drawing: Hashable, mesh: jax.sharding.Mesh) -> dict[str, Any]:
    """Returns run.json for a run that trains on `dataset`, all plain JSON."""
    return {
        "gpicl_flax": gpicl_flax.__version__,
        "jax": jax.__version__,
        "labels": dict(run.labels),
        **({"selection": dict(run.selection)} if run.selection else {}),
        "model": type(run.model).__name__,
        **run.sizes(),
        **run.tasks.run_info(),
        "steps": run.training.steps,
        "seed": run.seed,
        **run.tasks.data_run_info(dataset, drawing),
        "mesh": dict(mesh.shape),
        "device": mesh.devices.flat[0].device_kind,
    }
