"""A run folder, meta-tested anew."""

import hashlib

import jax
from etils import epath

from gpicl_flax.config import parse_text
from gpicl_flax.errors import UsageError
from gpicl_flax.records.run_folder import RunFolder
from gpicl_flax.runs.run import Run, check_data, write_evaluation
from gpicl_flax.tasks.projections.spec import ProjectionSpec
from gpicl_flax.training.checkpoint import Checkpoints
from gpicl_flax.training.state import abstract_state


def evaluate(folder: RunFolder, bindings: tuple[str, ...] = ()) -> epath.Path:
    """Meta-tests the newest checkpoint of a run folder anew, with gin `bindings` (of MetaTest, say) on top of its own.

    Returns:
      The file in eval/ with the result: the run's own without bindings, another one with them.

    Raises:
      UsageError: the folder is no run, holds no checkpoint, or the bindings do not fit.
    """
    run, _ = parse_text(folder.read_config(), bindings).resolve(Run)
    if not folder.checkpoints.exists():
        raise UsageError(f"{folder} holds no checkpoint yet")
    projection = _projection_spec(run, folder)
    mesh = run.check_devices()
    with jax.set_mesh(mesh), Checkpoints(folder.checkpoints) as checkpoints:
        if checkpoints.latest_step is None:
            raise UsageError(f"{folder} holds no checkpoint yet")
        datasets = [run.tasks.load(name) for name in run.test_names]
        for dataset in datasets:
            if dataset.name == run.tasks.base_dataset:
                check_data(folder, checkpoints, dataset)
        state, step = checkpoints.restore(abstract_state(run.model, run.optimizer, run.tasks, mesh=mesh))
    variant = hashlib.sha256("\n".join(bindings).encode()).hexdigest()[:8] if bindings else ""
    file = folder.evaluation(step, variant)
    with jax.set_mesh(mesh), run.precision():
        write_evaluation(run, projection, state.params, step, datasets, mesh, file)
    return file


def _projection_spec(run: Run, folder: RunFolder) -> ProjectionSpec:
    """How the projections of the run in a folder were drawn."""
    run_info = folder.read_run_info()
    if "projection" not in run_info:
        raise UsageError(f"{folder} was made by an older version of gpicl_flax, which drew other tasks")
    projection = ProjectionSpec.from_run_info(run_info["projection"])
    if run.tasks.projection not in ("auto", projection.kind):
        raise UsageError(
            f"{folder}: its projections were drawn in the form {projection.kind!r}; that cannot be changed to "
            f"{run.tasks.projection!r} afterwards"
        )
    return projection
