"""The meta-test of a run: at its end, and again from its folder."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import jax
from etils import epath

from gpicl_flax.config import parse_bindings
from gpicl_flax.errors import UsageError
from gpicl_flax.evaluation.meta_test import meta_test
from gpicl_flax.records.run_folder import RunFolder, write_json
from gpicl_flax.runs import saved_config
from gpicl_flax.runs.check import check_data
from gpicl_flax.runs.run import Run
from gpicl_flax.runtime import distributed
from gpicl_flax.tasks.families.data import TaskData
from gpicl_flax.training.checkpoint import Checkpoints
from gpicl_flax.training.state import abstract_state
from gpicl_flax.training.task_batches import TaskBatches


def write_evaluation(
    run: Run, task_batches: TaskBatches, params: Any, step: int, datasets: Sequence[TaskData], file: epath.Path
) -> None:
    """Meta-tests parameters of a run after a step and writes the curves. Called on the mesh of `task_batches`."""
    curves = meta_test(run.model, params, task_batches, datasets, run.meta_test, run.seed)
    if distributed.is_primary():
        write_json(file, {"step": step, "curves": curves})


def evaluate(folder: RunFolder, bindings: tuple[str, ...] = (), trusted_modules: Iterable[str] = ()) -> epath.Path:
    """Meta-tests the newest checkpoint of a run folder again.

    Args:
      folder: the run folder.
      bindings: gin bindings (of MetaTest, say) that are added to its own.
      trusted_modules: see `saved_config.trusted`.

    Returns:
      The file in eval/ with the result: the run's own without bindings, another one with them.

    Raises:
      UsageError: the folder is no run, holds no checkpoint, or the bindings do not fit.
    """
    saved = saved_config.read(folder).override(parse_bindings("\n".join(bindings)).bindings)
    run = saved_config.resolve(saved, str(folder.config), trusted_modules)
    if not folder.checkpoints.exists():
        raise UsageError(f"{folder} holds no checkpoint yet")
    drawing = run.tasks.read_drawing(folder.read_run_info(), str(folder))
    mesh = run.check_devices(trains=False)
    with jax.set_mesh(mesh), Checkpoints(folder.checkpoints) as checkpoints:
        if checkpoints.latest_step is None:
            raise UsageError(f"{folder} holds no checkpoint yet")
        datasets = [run.tasks.load(name) for name in run.test_names]
        for dataset in datasets:
            if dataset.name == run.tasks.data_name:
                check_data(folder, checkpoints, dataset)
        state, step, _ = checkpoints.restore(abstract_state(run.model, run.optimizer, run.tasks, mesh=mesh))
    variant = hashlib.sha256("\n".join(bindings).encode()).hexdigest()[:8] if bindings else ""
    file = folder.evaluation(step, variant)
    with jax.set_mesh(mesh), run.precision():
        write_evaluation(run, run.task_batches(drawing, mesh), state.params, step, datasets, file)
    return file
