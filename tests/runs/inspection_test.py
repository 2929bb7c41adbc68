"""`gpicl inspect` on runs that are done, half finished and diverged."""

import json
import pathlib
import shutil

import flax.traverse_util
import jax
import numpy as np
import pytest
from flax import linen as nn

from gpicl_flax.cli.main import main
from gpicl_flax.config import parse
from gpicl_flax.models import LSTM
from gpicl_flax.records import json_lines
from gpicl_flax.records.run_folder import DIVERGED, RunFolder
from gpicl_flax.runs.execute import RunSpec, execute
from gpicl_flax.runtime.preemption import StopRequest


@pytest.fixture(scope="module")
def done(small_bindings, tmp_path_factory):
    """A run of 20 steps with checkpoints at 10 and 20, which nobody may change."""
    bindings = [
        *("Run.model = @LSTM()", "LSTM.hidden_size = 4", "Training.steps = 20", "Training.steps_per_dispatch = 2"),
        *("Training.checkpoint_period = 10", "MetaTest.at_checkpoints = True"),
    ]
    folder = RunFolder(tmp_path_factory.mktemp("inspect") / "run")
    execute([RunSpec.from_config(parse([], [*small_bindings, *bindings]), folder)], StopRequest())
    return folder


@pytest.fixture
def half_finished(done, tmp_path):
    """As it is when it was killed between its first checkpoint and its end."""
    shutil.copytree(done.path, tmp_path / "half")
    folder = RunFolder(tmp_path / "half")
    for path in (folder.path / "DONE", folder.evaluation(20)):
        path.unlink()
    shutil.rmtree(folder.checkpoints / "20")
    shutil.rmtree(folder.path / ".claim")
    lines = folder.metrics.read_text().splitlines(keepends=True)
    folder.metrics.write_text("".join(lines[:6]) + lines[6][:20])
    return folder


def inspect_json(folder, capsys):
    assert main(["inspect", str(folder), "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    return json.loads(line)


def test_a_done_run(done, capsys):
    found = inspect_json(done, capsys)
    assert (found["state"], found["step"], found["steps"], found["why_diverged"]) == ("done", 20, 20, None)
    assert found["checkpoints"] == [10, 20] and found["model"] == "LSTM"
    assert found["config"]["LSTM.hidden_size"] == "4" and found["config"]["Run.model"] == "@LSTM()"
    run_info = done.read_run_info()
    assert found["base_dataset"] == run_info["base_dataset"] and len(run_info["base_dataset"]["fingerprint"]) == 16
    assert {key: found[key] for key in ("parameters", "state_size_paper", "state_size_exact")} == {
        "parameters": run_info["parameters"], "state_size_paper": 4, "state_size_exact": 8,
    }  # fmt: skip


def test_parameters_are_those_that_the_model_makes(done, capsys):
    params = LSTM(hidden_size=4).init(jax.random.key(0), np.zeros((1, 6, 16)), np.zeros((1, 6), int))["params"]
    expected = {k: v.shape for k, v in flax.traverse_util.flatten_dict(nn.unbox(params), sep="/").items()}
    found = inspect_json(done, capsys)
    assert {tensor["name"]: tuple(tensor["shape"]) for tensor in found["tensors"]} == expected
    assert all(tensor["count"] == np.prod(tensor["shape"]) for tensor in found["tensors"])
    assert sum(tensor["count"] for tensor in found["tensors"]) == found["parameters"]


def test_the_best_of_each_metric_is_found_where_it_was(done, capsys):
    metrics = {metric["name"]: metric for metric in inspect_json(done, capsys)["metrics"]}
    rows = json_lines.read(done.metrics)
    lowest = min(rows, key=lambda row: row["loss"])
    assert metrics["loss"] == {
        "name": "loss", "last": rows[-1]["loss"], "best": lowest["loss"], "best_step": lowest["step"],
    }  # fmt: skip
    assert metrics["accuracy_last"]["best"] == max(row["accuracy_last"] for row in rows)
    curves = [done.read_evaluations()[index]["curves"] for index in (0, 1)]
    ends = [next(c["accuracy"][-1] for c in both if c["tasks"] == "unseen") for both in curves]
    tested = metrics["meta-test of unseen tasks, digits"]
    assert tested["last"] == ends[1] and tested["best"] == max(ends)


def test_diagnostics_are_followed_and_what_is_not_finite_is_passed_over(half_finished, capsys):
    rows = json_lines.read(half_finished.metrics)
    for row, loss, accuracy in zip(rows, (2.0, 1.5, None), (0.25, 0.5, 0.375), strict=False):
        row["diagnostics"] = {"unseen_loss": loss, "unseen_accuracy_last": accuracy}
    half_finished.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = [tuple(metric.values()) for metric in inspect_json(half_finished, capsys)["metrics"]]
    assert ("unseen_loss", 1.5, 1.5, 4) in found and ("unseen_accuracy_last", 0.375, 0.5, 4) in found


def test_the_text_shows_modules_with_their_counts(done, capsys):
    assert main(["inspect", str(done)]) == 0
    out = capsys.readouterr().out
    lines = [line.split() for line in out.splitlines()]
    assert ["state", "done,", "step", "20", "of", "20"] in lines and ["checkpoints", "10,", "20"] in lines
    assert "fingerprint" in out and "LSTM.hidden_size" in out and "meta-test of unseen tasks, digits" in out
    head = next(line for line in lines if line[:1] == ["logits"])
    assert head == ["logits", "50"]  # 4 x 10 and 10
    assert ["kernel", "4", "x", "10", "40"] in lines and ["bias", "10", "10"] in lines


def test_a_half_finished_run(half_finished, capsys):
    found = inspect_json(half_finished, capsys)
    assert (found["step"], found["steps"], found["checkpoints"]) == (12, 20, [10])
    assert found["state"] != "done"
    assert {metric["name"]: metric["best_step"] for metric in found["metrics"]}["meta-test of seen tasks, digits"] == 10
    assert main(["inspect", str(half_finished)]) == 0


def test_a_run_that_has_only_begun(done, tmp_path, capsys):
    (tmp_path / "config.gin").write_text(done.config.read_text())
    found = inspect_json(tmp_path, capsys)
    assert (found["state"], found["step"], found["base_dataset"], found["checkpoints"]) == ("waiting", None, None, [])
    assert found["metrics"] == [] and found["parameters"] == done.read_run_info()["parameters"]
    assert main(["inspect", str(tmp_path)]) == 0
    assert ["checkpoints", "none"] in [line.split() for line in capsys.readouterr().out.splitlines()]


def test_an_exported_learner_is_no_run_that_waits(done, tmp_path, capsys):
    assert main(["export", str(done), str(tmp_path / "learner")]) == 0
    capsys.readouterr()
    assert main(["inspect", str(tmp_path / "learner")]) == 0
    assert "exported from a run of 20 steps" in capsys.readouterr().out


def test_a_diverged_run_says_why(half_finished, capsys):
    half_finished.mark(DIVERGED, "diverged at step 13: loss nan\n")
    found = inspect_json(half_finished, capsys)
    assert found["state"] == "diverged" and found["why_diverged"] == "diverged at step 13: loss nan"
    assert main(["inspect", str(half_finished)]) == 0
    assert "diverged at step 13: loss nan" in capsys.readouterr().out


def test_looking_changes_nothing(half_finished):
    folder = pathlib.Path(half_finished.path)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert main(["inspect", str(half_finished)]) == 0
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_what_is_no_run_is_refused(refused, tmp_path):
    refused(["inspect", str(tmp_path)], "not a run folder")
