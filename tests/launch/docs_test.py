"""The commands of docs/tpu.md work."""

import pathlib
import re
import shlex

import pytest

from gpicl_flax import cli

ROOT = pathlib.Path(__file__).parents[2]
BLOCKS = re.findall(r"^```\n(.*?)^```", (ROOT / "docs/tpu.md").read_text(), re.M | re.S)
LINES = [line for block in BLOCKS for line in block.splitlines()]


def commands(start):
    found = [line for line in LINES if line.startswith(start)]
    assert found, f"docs/tpu.md shows no {start} command"
    return found


@pytest.mark.parametrize("line", commands("launch/"))
def test_a_launch_command_works_as_a_dry_run(cloud, line):
    script, *arguments = shlex.split(line)
    if script != "launch/status.sh" and "--dry_run" not in arguments:  # status only looks
        arguments.append("--dry_run")
    if script == "launch/status.sh":
        arguments = [a for a in arguments if not a.endswith(".gin")] + ["--name", "state-size"]
    if "local" in arguments:
        arguments += ["--package", "preinstalled"]
    cloud.pretend_prepared(cloud.folder / "tfds", "mnist", "fashion_mnist")
    result = cloud.run(pathlib.Path(script).name, *arguments, TFDS_DATA_DIR=str(cloud.folder / "tfds"))
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("line", commands("gpicl "))
def test_a_gpicl_command_parses(line):
    cli._parser().parse_args(shlex.split(line)[1:])


@pytest.mark.parametrize("line", commands("gcloud "))
def test_a_gcloud_command_is_one_that_a_dry_run_prints(line):
    assert any(line in path.read_text() for path in (ROOT / "tests/launch/golden").glob("*.txt"))
