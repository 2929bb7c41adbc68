"""The launch commands of docs/tpu.md and the README work; docs_test looks at the others."""

import pathlib
import re
import shlex

import pytest

from gpicl_flax import config
from gpicl_flax.records.run_folder import DONE, RunFolder
from gpicl_flax.sweep import grid, listing  # noqa: F401  (listing brings what gin files name)

ROOT = pathlib.Path(__file__).parents[2]
PAGES = ("docs/tpu.md", "README.md")
BLOCKS = [b for page in PAGES for b in re.findall(r"^```\n(.*?)^```", (ROOT / page).read_text(), re.M | re.S)]
LINES = [line for block in BLOCKS for line in block.splitlines()]


def commands(start):
    found = [line for line in LINES if line.startswith(start)]
    assert found, f"no page shows a {start} command"
    return found


@pytest.mark.launch
@pytest.mark.parametrize("line", commands("launch/"))
def test_a_launch_command_works_as_a_dry_run(cloud, line):
    script, *arguments = shlex.split(line)
    if script != "launch/status.sh" and "--dry_run" not in arguments:  # status only looks
        arguments.append("--dry_run")
    if script == "launch/status.sh":  # the table of the runs has a test of its own
        arguments = [a for a in arguments if not a.endswith(".gin")] + ["--name", "state-size"]
    if "local" in arguments:
        arguments += ["--package", "preinstalled"]
    cloud.pretend_prepared(cloud.folder / "tfds", "mnist", "fashion_mnist")
    result = cloud.run(pathlib.Path(script).name, *arguments, TFDS_DATA_DIR=str(cloud.folder / "tfds"))
    assert result.returncode == 0, result.stderr


@pytest.mark.launch
@pytest.mark.skipif(not (ROOT / ".venv/bin/gpicl").exists(), reason="the table of the runs is made where .venv is")
def test_the_status_command_shows_a_line_for_every_point(cloud):
    [line] = [line for line in commands("launch/status.sh gin/")]
    workdir = cloud.folder / "mounted"
    points = grid.points(config.parse(["gin/state_size.gin"]))
    RunFolder(workdir / points[0].run_id).mark(DONE)
    _, *arguments = shlex.split(line.replace("gs://bucket/state_size", str(workdir)))
    result = cloud.run("status.sh", *arguments)
    assert result.returncode == 0, result.stderr
    states = [line.split()[:2] for line in result.stdout.splitlines()]
    assert [point.run_id for point in points] == [state[0] for state in states[-len(points) - 1 : -1]]
    assert [points[0].run_id, "done"] in states and [points[1].run_id, "waiting"] in states
    assert result.stdout.splitlines()[-1] == f"{len(points)} points: 1 done, {len(points) - 1} waiting"


@pytest.mark.parametrize("line", commands("gcloud compute tpus"))
def test_a_command_for_a_slice_is_one_that_a_dry_run_prints(line):
    assert any(line in path.read_text() for path in (ROOT / "tests/launch/golden").glob("*.txt"))
