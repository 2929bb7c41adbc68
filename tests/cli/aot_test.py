"""`gpicl aot`, as a user types it."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest

from gpicl_flax.cli.main import main
from gpicl_flax.config import parse
from gpicl_flax.sweep import cost, listing, stages
from gpicl_flax.training.cost import chips

ROOT = pathlib.Path(__file__).parents[2]


def test_mistakes_are_one_line_and_exit_2(refused, capsys, monkeypatch):
    arguments = ["aot", "--gin_file", "gin/quickstart.gin", "--topology"]
    refused([*arguments, "16 chips"], "CHIP:AxBxC, such as v5e:4x4x1")
    refused([*arguments, "v9:2x2x1"], "no TPU chip 'v9'; there are v4, v5e, v5p")
    with pytest.raises(SystemExit, match="2"):
        main([*arguments, "v5e:2x2x1", "--stack", "0"])
    assert "argument --stack: must be a positive integer, not '0'" in capsys.readouterr().err
    refused([*arguments, "v5e:2x2x1", "--point", "none"], "no run id matches 'none'")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    missing = "the TPU compiler is missing; install it with `pip install -c constraints.txt libtpu`"
    refused([*arguments, "v5e:2x2x1"], missing)


@pytest.fixture(scope="module")
def aot():
    """Runs `gpicl aot` with the TPU compiler; arguments -> what it printed."""
    beside = ROOT / "build" / "libtpu"
    if not (beside / "libtpu").is_dir() and importlib.util.find_spec("libtpu") is None:
        pytest.skip("needs libtpu: `make libtpu`")
    path = os.pathsep.join(filter(None, [str(ROOT), str(beside), os.environ.get("PYTHONPATH")]))

    def run(*arguments, rc=0):
        command = [sys.executable, "-m", "gpicl_flax", "aot", *arguments]
        done = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True)
        assert done.returncode == rc, done.stderr
        return done.stdout if rc == 0 else done.stderr

    return run


GRIDS = """[{'Run.model': @Transformer(), 'Transformer.num_layers': 1, 'Transformer.model_size': 64,
             'Run.seed': [0, 1], 'Run.optimizer': @adam(), 'adam.learning_rate': [1e-3, 1e-2]},
            {'Run.model': @LSTM(), 'LSTM.hidden_size': 16, 'TaskDistribution.task_batch_size': [8, 6]},
            {'Run.model': @MLP(), ('MLP.hidden_size', 'MeshShape.model'): [(60_000, 1), (8, 3)]}]"""


@pytest.mark.launch
def test_every_program_of_a_sweep_is_compiled_once_and_says_what_it_takes_or_why_not(aot, small_bindings):
    bindings = [
        *small_bindings,
        "TaskDistribution.sequence_length = 20",
        "MeshShape.data = -1",
        f"sweep.grids = {GRIDS}",
    ]
    options = [option for binding in bindings for option in ("--gin_bindings", binding)]
    text = aot("--gin_file", "gin/inputs/14x14x1.gin", *options, "--topology", "v5e:2x2x1", "--json")
    transformer, lstm, odd, large, gap = map(json.loads, text.splitlines())
    assert [len(row["points"]) for row in (transformer, lstm, odd, large, gap)] == [4, 1, 1, 1, 1]
    for row in (transformer, lstm):
        assert row["problem"] is None and row["mesh"] == {"data": 4}
        assert 0 < row["hbm_bytes"] < row["hbm_limit"] == chips.chip("v5e").usable_hbm_bytes
        assert "all-reduce of " in row["collectives"]
        assert min(row["flops"], row["traffic"], row["seconds"], row["compile_seconds"]) > 0
    assert lstm["counted_flops"] and not transformer["counted_flops"]
    assert "task_batch_size = 6 is not divisible by the mesh: 4 device(s)" in odd["problem"]
    assert "JAX makes no mesh of 3 of the 4 devices" in gap["problem"]
    assert large["problem"].startswith("does not fit: ") and large["hbm_bytes"] > large["hbm_limit"]


@pytest.mark.launch
def test_the_compiler_counts_what_the_budget_counts(aot):
    point = stages.points_or_run(parse(["gin/base.gin"]))
    (row,) = cost.budget(point, listing.resolve_all(point), chip=chips.chip("v5e"))
    compiled = json.loads(aot("--gin_file", "gin/base.gin", "--topology", "v5e:2x2x1", "--json"))
    assert compiled["flops"] == pytest.approx(row.step_flops / 4, rel=0.05)


@pytest.mark.launch
@pytest.mark.parametrize(
    "topology, devices", [("v4:2x2x2", 8), ("v5p:2x2x1", 4), ("v6e:4x4x1", 16), ("tpu7x:2x2x1", 8)]
)
def test_slices_of_every_chip_have_their_devices(aot, topology, devices):
    text = aot("--gin_file", "gin/quickstart.gin", "--topology", topology)
    assert f"data={devices} " in text and text.endswith("All 1 points compile and fit.\n")


@pytest.mark.launch
def test_a_topology_that_does_not_exist_and_nothing_to_compile_are_one_line(aot):
    error = aot("--gin_file", "gin/quickstart.gin", "--topology", "v5e:3x5x1", rc=2)
    assert "the TPU compiler knows no topology 'v5e:3x5x1'" in error and error.strip().count("\n") == 0
    text = aot("--gin_file", "gin/sgd.gin", "--topology", "v5e:2x2x1")
    assert text == "108 of 108 points have Training.steps = 0: nothing to compile\n"
