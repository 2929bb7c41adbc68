"""Every damage to every file of a run, and what reads it: the right result, or one line that names the file."""

import os

import numpy as np
import pytest

from gpicl_flax.analysis.data import one_run
from gpicl_flax.analysis.report import run_summary
from gpicl_flax.errors import GpiclError
from gpicl_flax.records.run_folder import RunFolder
from gpicl_flax.runs import status
from gpicl_flax.runs.check import check_folder
from gpicl_flax.training.checkpoint import Checkpoints
from tests import damages


class Crash(Exception):
    """In place of a kill."""


@pytest.fixture(scope="module")
def half_finished(config, start, tmp_path_factory):
    folder = RunFolder(tmp_path_factory.mktemp("half_finished") / "run")

    def crash(row):
        if row["step"] == 14:
            raise Crash

    with pytest.raises(Crash):
        start(config, folder, crash)
    return folder


def _checkpoints(folder):
    if folder.checkpoints.exists():
        with Checkpoints(folder.checkpoints) as checkpoints:
            return checkpoints.steps, checkpoints.meta()["data"]
    return None


READERS = {
    "status": lambda folder, config: status.read_status("run", folder),
    "report": lambda folder, config: one_run.read(folder).gaps,
    "train": lambda folder, config: check_folder(config, folder),
    "summary": lambda folder, config: run_summary.summary(folder, folder.latest_evaluation()),
    "checkpoints": lambda folder, config: _checkpoints(folder),
}


@pytest.mark.parametrize("state", ["finished", "half_finished"])
@pytest.mark.parametrize("kind", damages.KINDS)
def test_every_file_and_reader(request, config, tmp_path, state, kind):
    source, rng = request.getfixturevalue(state), np.random.default_rng(0)
    names = [name for name in damages.files(source.path) if "/state/" not in name and "/d/" not in name]
    assert len(names) > 8
    for number, name in enumerate(names):
        folder = RunFolder(damages.copy(source.path, tmp_path / str(number)))
        damages.damage(os.path.join(folder.path, name), kind, rng)
        for reader, read in READERS.items():
            try:
                read(folder, config)
            except GpiclError as error:
                message = str(error)
                assert "\n" not in message and len(message) < 500, (name, reader, message)
                expected = os.path.basename(name) if reader != "checkpoints" else "checkpoints"
                assert expected in message or str(folder) in message, (name, reader, message)


@pytest.mark.parametrize("name", ["run.json", "metrics.jsonl"])
@pytest.mark.parametrize("kind", ["garbage", "a folder", "a pipe", "other JSON"])
def test_a_status_names_what_it_cannot_read(finished, tmp_path, name, kind):
    folder = RunFolder(damages.copy(finished.path, tmp_path / "run"))
    damages.damage(os.path.join(folder.path, name), kind, np.random.default_rng(0))
    found = status.read_status("run", folder)
    assert found.state == status.DAMAGED and name in found.who
