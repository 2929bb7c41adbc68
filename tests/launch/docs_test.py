"""The launch commands of the documentation work; docs_test looks at the others."""

import pathlib
import re
import shlex

import pytest

from gpicl_flax import config
from gpicl_flax.records.run_folder import DONE, RunFolder
from gpicl_flax.sweep import grid, listing  # noqa: F401  (listing brings what gin files name)

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = [block for page in PAGES for block in re.findall(r"^```\n(.*?)^```", page.read_text(), re.M | re.S)]
LINES = [line for block in BLOCKS for line in block.splitlines()]
DOORS = {
    "launch/tpu_sweep.sh": "sweep",
    "launch/tpu_train.sh": "train",
    "launch/status.sh": "status",
    "launch/delete.sh": "delete",
}


def commands(*starts):
    found = [line for line in LINES if line.startswith(starts)]
    assert found, f"no page shows a command {starts}"
    return found


def words_of(line: str) -> list[str]:
    """Returns the words behind `gpicl launch`."""
    words = shlex.split(line)
    return words[2:] if words[0] == "gpicl" else [DOORS[words[0]], *words[1:]]


@pytest.mark.parametrize("line", commands("launch/", "gpicl launch"))
def test_a_launch_command_works_as_a_dry_run(run, machine, line):
    """Also on a machine where no base dataset is prepared, and none of the tools is installed."""
    command, *words = words_of(line)
    if command != "status":
        words += ["--dry_run"] * ("--dry_run" not in words)
        machine.installed = {"gpicl"}
    result = run(command, *words)
    assert result.code == 0, result.err
    assert command == "status" or machine.calls == []


AWAY = [line for line in commands("launch/", "gpicl launch") if "--engine local" not in line]  # others start workers


@pytest.mark.parametrize("line", AWAY)
def test_a_launch_command_does_what_it_says_where_its_data_are_prepared(run, machine, prepared, monkeypatch, line):
    command, *words = words_of(line)
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared))
    words = [word for word in words if word != "--dry_run"] + ["--yes"] * (command == "delete")
    workdir = str(machine.folder / "shared")
    words = [word if not word.startswith("/scratch") else workdir for word in words]
    result = run(command, *words)
    assert result.code == 0, result.err


@pytest.mark.launch
def test_the_status_command_shows_a_line_for_every_point(cloud):
    [line] = commands("launch/status.sh gin/")
    workdir = cloud.folder / "mounted"
    points = grid.points(config.parse(["gin/state_size.gin"]))
    RunFolder(workdir / points[0].run_id).mark(DONE)
    command, *words = words_of(line.replace("gs://bucket/state_size", str(workdir)))
    result = cloud.run(command, *words)
    assert result.returncode == 0, result.stderr
    states = [line.split()[:2] for line in result.stdout.splitlines()]
    assert [point.run_id for point in points] == [state[0] for state in states[-len(points) - 1 : -1]]
    assert [points[0].run_id, "done"] in states and [points[1].run_id, "waiting"] in states
    assert result.stdout.splitlines()[-1] == f"{len(points)} points: 1 done, {len(points) - 1} waiting"


@pytest.mark.parametrize("line", commands("gcloud compute tpus"))
def test_a_command_for_a_slice_is_one_that_a_dry_run_prints(line):
    assert any(line in path.read_text() for path in (ROOT / "tests/launch/golden").glob("*.txt"))
