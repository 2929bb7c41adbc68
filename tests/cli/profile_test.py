"""`gpicl profile`, as a user types it."""

import gzip
import json

import jax
import pytest

from gpicl_flax.cli.main import main


@pytest.fixture(scope="module")
def options(tmp_path_factory, small_bindings):
    """Options for a small run with dispatches of two steps."""
    path = tmp_path_factory.mktemp("gin") / "small.gin"
    path.write_text("\n".join(["include 'gin/base.gin'", *small_bindings]))
    bindings = ["Run.model = @MLP()", "MLP.hidden_size = 64", "Training.steps_per_dispatch = 2"]
    return ["--gin_file", str(path), *(option for each in bindings for option in ("--gin_bindings", each))]


def test_it_prints_a_table_and_leaves_a_trace(options, tmp_path, capsys):
    output = tmp_path / "new/trace"
    assert main(["profile", *options, "--steps", "3", "--output", str(output)]) == 0
    first, speed, head, *rows, last = capsys.readouterr().out.splitlines()
    assert first.startswith("MLP, 1 x cpu: 4 steps in dispatches of 2, compiled in ")  # rounded up
    assert " steps/s, " in speed and speed.endswith(" with the tracer")
    assert head.split() == ["kernel", "calls", "total", "ms", "share", "place"]
    assert len(rows) == 11 and rows[-1].startswith("(") and " others)" in rows[-1]
    (file,) = output.rglob("perfetto_trace.json.gz")
    assert last.startswith(f"{file}: ") and last.endswith(f"tensorboard --logdir {output}")
    assert json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    assert list(output.rglob("*.xplane.pb"))


def test_json_has_all_kernels_the_costliest_first(options, tmp_path, capsys):
    assert main(["profile", *options, "--steps", "2", "--output", str(tmp_path / "trace"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    rows = found["kernels"]
    times = [row["milliseconds"] for row in rows]
    assert times == sorted(times, reverse=True) and times[-1] >= 0
    assert sum(row["share"] for row in rows) == pytest.approx(1) and rows[0]["share"] < 1
    assert all(row["calls"] >= 1 for row in rows)
    places = {row["place"] for row in rows}
    assert {"mlp_0/dot_general", "gradient of mlp_1/dot_general", "logits/dot_general"} <= places
    assert found["steps"] == found["steps_per_dispatch"] == 2 and found["device"] == jax.devices()[0].device_kind
    assert min(found[name] for name in ("steps_per_second", "traced_steps_per_second", "compile_seconds")) > 0


def test_mistakes_are_one_line_and_exit_2(options, refused, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    profile = ["profile", *options, "--output"]
    refused([*profile, str(tmp_path / "full")], "the folder is not empty; choose a new one")
    refused([*profile, str(tmp_path / "full/file")], "is no folder")
    refused([*profile, "gs://bucket/trace"], "must go to a local folder")
    new = str(tmp_path / "new")
    refused([*profile, new, "--gin_bindings", "Training.steps = 0"], "there is no training step to profile")
    refused([*profile, new, "--gin_bindings", "MeshShape.data = 3"], "is not divisible by the mesh")
    refused(["profile", "--gin_file", "gin/state_size.gin", "--output", new], "gin/state_size.gin describes a sweep")
    assert not (tmp_path / "new").exists()
