"""Checks whether a run may begin, or continue, in a folder."""

from gpicl_flax.config import Config, differences
from gpicl_flax.errors import UsageError
from gpicl_flax.records.run_folder import DIVERGED, RunFolder, ended_by
from gpicl_flax.runs import saved_config
from gpicl_flax.runs.identity import identifying
from gpicl_flax.tasks.families.data import TaskData
from gpicl_flax.training.checkpoint import Checkpoints


def check_folder(config: Config, folder: RunFolder) -> None:
    """Raises UsageError if the folder holds another run, something else, or a run that diverged."""
    names = folder.names()
    if folder.config.name in names:
        changed = differences(*map(identifying, (saved_config.read(folder), config)))
        if changed:
            raise UsageError(
                f"{folder} holds a run with another configuration ({'; '.join(changed)}); choose another folder"
            )
    elif any(not name.startswith(".") for name in names):
        raise UsageError(
            f"{folder} is not empty and is not a run folder: it has no {folder.config.name}; restore that file, or "
            "choose another folder"
        )
    if ended_by(names) == DIVERGED:
        raise UsageError(f"{folder} holds a run that {folder.read_marker(DIVERGED)}")


def check_data(folder: RunFolder, checkpoints: Checkpoints, dataset: TaskData) -> None:
    """Raises UsageError if the newest checkpoint, where there is one, belongs to other data than `dataset`."""
    if checkpoints.latest_step is not None and checkpoints.meta().get("data") != dataset.fingerprint:
        raise UsageError(
            f"{folder} was trained on other data: base dataset {dataset.name!r} has the fingerprint "
            f"{dataset.fingerprint} now, and had {checkpoints.meta().get('data')} then; bring back that data, or "
            "choose another folder"
        )
