"""Commands on gs://: what a user reads when storage says no."""

import pytest

from gpicl_flax.cli.main import main
from gpicl_flax.runtime import gcs_file_system


@pytest.fixture(autouse=True)
def impatient(gcs, monkeypatch):
    monkeypatch.setattr(gcs_file_system, "RETRY_SECONDS", 0.2)
    monkeypatch.setattr(gcs_file_system, "_FIRST_DELAY", 0.05)


COMMANDS = {
    "train": ["train", "--gin_file", "gin/quickstart.gin", "--workdir"],
    "sweep": ["sweep", "--gin_file", "gin/state_size.gin", "--gin_bindings", "sweep.scale = 'cpu'", "--workdir"],
    "status": [
        "sweep",
        "--status",
        "--gin_file",
        "gin/state_size.gin",
        "--gin_bindings",
        "sweep.scale = 'cpu'",
        "--workdir",
    ],
    "inspect": ["inspect"],
    "evaluate": ["evaluate"],
    "report": ["report"],
}


def said(capfd):
    return [line for line in capfd.readouterr().err.splitlines() if line and "google" not in line]


@pytest.mark.parametrize("command", ["train", "sweep"])
@pytest.mark.parametrize("fault", ["deny_bucket_get", "deny_write", "deny_list"])
def test_a_missing_right_ends_a_command_before_its_work(gcs, capfd, command, fault):
    gcs.set_faults(**{fault: True})
    assert main([*COMMANDS[command], "gs://bucket/runs"]) == 2
    (line,) = said(capfd)
    assert line.startswith("gpicl: error: gs://bucket: runs need rights that are missing here: storage.")
    gcs.clear_faults()
    assert gcs.objects("bucket") == {}


@pytest.mark.parametrize("command", ["train", "sweep", "status", "inspect", "evaluate", "report"])
def test_a_missing_bucket_is_named(capfd, command):
    assert main([*COMMANDS[command], "gs://nowhere/runs"]) == 2
    assert said(capfd) == ["gpicl: error: there is no bucket gs://nowhere: make it first, or name another one"]


@pytest.mark.parametrize("command", ["train", "sweep", "status", "inspect", "evaluate", "report"])
def test_storage_that_is_away_is_one_line(gcs, capfd, command):
    gcs.stop()
    assert main([*COMMANDS[command], "gs://bucket/runs"]) == 1
    (line,) = said(capfd)
    assert line.startswith("gpicl: error: gs://bucket has not answered for") and "start the same command again" in line
