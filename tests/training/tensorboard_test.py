import importlib.util

import pytest

from gpicl_flax.config import parse
from gpicl_flax.errors import UsageError
from gpicl_flax.records import json_lines
from gpicl_flax.records.run_folder import RunFolder
from gpicl_flax.runs.execute import RunSpec, execute
from gpicl_flax.runs.run import Run
from gpicl_flax.runtime.preemption import StopRequest
from gpicl_flax.training.tensorboard import scalars

MODEL = ["Run.model = @LSTM()", "LSTM.hidden_size = 4", "Training.steps = 4", "Training.steps_per_dispatch = 2",
         "Training.checkpoint_period = 4", "Run.tensorboard = True"]  # fmt: skip


def test_without_the_extra_it_is_refused(small_bindings, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="tensorflow and tensorboard.*extra `tensorboard`"):
        parse([], [*small_bindings, *MODEL]).resolve(Run)


def test_what_is_nested_has_a_path_and_what_is_no_number_is_left_out():
    row = {
        "step": 3,
        "loss": 2.0,
        "phase": "Overfit",
        "plateau_left_at": None,
        "diagnostics": {"matching_score": [[0.5, 0.25, None]], "grad_norms": {"block_0/key": 1.0}},
    }
    assert dict(scalars(row)) == {
        "loss": 2.0,
        "diagnostics/matching_score/0/0": 0.5,
        "diagnostics/matching_score/0/1": 0.25,
        "diagnostics/grad_norms/block_0/key": 1.0,
    }


def test_tensorboard_gets_the_rows_of_metrics_jsonl(small_bindings, tmp_path):
    pytest.importorskip("tensorflow", reason="needs the extra `tensorboard`")
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    folder = RunFolder(tmp_path / "run")
    execute([RunSpec.from_config(parse([], [*small_bindings, *MODEL]), folder)], StopRequest())
    from tensorboard.util.tensor_util import make_ndarray

    events = accumulator.EventAccumulator(str(folder.path / "tensorboard"))
    events.Reload()
    written = {e.step: float(make_ndarray(e.tensor_proto)) for e in events.Tensors("loss")}
    assert written == pytest.approx({row["step"]: row["loss"] for row in json_lines.read(folder.metrics)})
