"""Runs whose tasks have numbers as targets and no base dataset: all that a run does, with NoisyLinearRegression."""

import json
import shutil

import numpy as np
import pytest

from gpicl_flax.analysis.data import study, write_tables
from gpicl_flax.analysis.figures import error_within_sequence, learning_curve
from gpicl_flax.analysis.report import report, run_summary
from gpicl_flax.config import parse
from gpicl_flax.errors import Preempted, UsageError
from gpicl_flax.learners import learner
from gpicl_flax.records import json_lines
from gpicl_flax.records.run_folder import RunFolder
from gpicl_flax.runs.evaluate import evaluate
from gpicl_flax.runs.execute import RunSpec, execute
from gpicl_flax.runs.inspection import inspect
from gpicl_flax.runs.run import resolve
from gpicl_flax.runs.status import read_status
from gpicl_flax.runtime.preemption import StopRequest

BINDINGS = [
    "Run.tasks = @NoisyLinearRegression()",
    "NoisyLinearRegression.dimensions = 2", "NoisyLinearRegression.sequence_length = 6",
    "NoisyLinearRegression.task_batch_size = 8", "NoisyLinearRegression.noise = 0.1",
    "Run.model = @LSTM()", "LSTM.hidden_size = 8", "Run.optimizer = @adam()", "adam.learning_rate = 1e-2",
    "Training.steps = 12", "Training.steps_per_dispatch = 2", "Training.checkpoint_period = 4",
    "Training.diagnostics = @Diagnostics()", "Diagnostics.period = 4", "Diagnostics.num_sequences = 4",
    "MetaTest.num_sequences = 20", "MeshShape.data = 1",
]  # fmt: skip
NORMALS = ["NoisyLinearRegression.predicts = 'normals'"]
TRANSFORMER = [
    "Run.model = @Transformer()", "Transformer.num_layers = 1", "Transformer.num_heads = 2", "Transformer.key_size = 4",
    "Transformer.model_size = 8",
]  # fmt: skip


def config_of(*bindings):
    """The configuration with other bindings, without the settings of a model or family that these replace."""
    names = [line.split(" =")[0] for line in bindings]
    replaced = {"Run.model": "LSTM.", "Run.tasks": "NoisyLinearRegression."}
    gone = tuple(prefix for name, prefix in replaced.items() if name in names)
    kept = [line for line in BINDINGS if line.split(" =")[0] not in names and not line.startswith(gone)]
    return parse([], [*kept, *bindings])


@pytest.fixture(scope="module")
def done(start, tmp_path_factory):
    """Kind of targets -> a finished run."""
    folders = {}
    for kind, bindings in (("numbers", []), ("normals", NORMALS)):
        folders[kind] = RunFolder(tmp_path_factory.mktemp(kind) / "run")
        start(config_of(*bindings), folders[kind])
    return folders


@pytest.mark.parametrize(("kind", "score"), [("numbers", "loss"), ("normals", "squared_error")])
def test_logs_and_curves_are_in_the_units_of_the_targets(done, kind, score):
    folder = done[kind]
    run_info = folder.read_run_info()
    assert run_info["family"] == "NoisyLinearRegression" and "num_classes" not in run_info
    assert run_info["targets"]["predicts"] == kind and run_info["targets"]["score"] == score
    assert run_info["base_dataset"]["name"] == "noisy_linear_regression" and run_info["num_tasks"] is None
    rows = json_lines.read(folder.metrics)
    assert [row["step"] for row in rows] == list(range(2, 13, 2)) and rows[0]["plateau"] is True
    assert not [name for row in rows for name in row if "accuracy" in name]
    assert all(np.isfinite(row[f"{score}_last"]) for row in rows)
    (first, *_) = (row["diagnostics"] for row in rows if "diagnostics" in row)
    assert first.keys() == {"unseen_loss", f"unseen_{score}_last", "grad_norms", "distances"}
    curves = folder.latest_evaluation()["curves"]
    assert [(curve["tasks"], curve["base_dataset"]) for curve in curves] == [
        ("seen", "noisy_linear_regression"),
        ("unseen", "noisy_linear_regression"),
    ]
    for curve in curves:
        assert len(curve[score]) == 6 and "accuracy" not in curve
        low, mean, high = (np.array(curve[f"{score}{end}"]) for end in ("_low", "", "_high"))
        assert (low < mean).all() and (mean < high).all()
    text = run_summary.summary(folder, folder.latest_evaluation())
    assert "meta-test squared error" in text and "chance is 2.010" in text
    left, right = learning_curve.draw(folder, folder.latest_evaluation()).axes
    assert left.get_ylabel() == "meta-test squared error"
    expected = {"numbers": "squared error", "normals": "negative log likelihood (nats)"}
    assert right.get_ylabel() == expected[kind]


@pytest.mark.slow
@pytest.mark.parametrize("stops", [[2, 8]])
def test_a_run_that_is_stopped_goes_on_bit_for_bit(start, contents, sigterm_at, done, tmp_path, stops):
    folder = RunFolder(tmp_path / "interrupted")
    for stop in stops:
        with pytest.raises(Preempted):
            start(config_of(), folder, sigterm_at(stop))
    start(config_of(), folder)
    assert contents(folder) == contents(done["numbers"])


@pytest.mark.slow
def test_rows_after_the_last_checkpoint_of_a_killed_run_are_made_again(start, contents, done, tmp_path):
    folder = RunFolder(tmp_path / "killed")

    def kill(row):
        if row["step"] >= 10:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        start(config_of(*NORMALS), folder, kill)
    start(config_of(*NORMALS), folder)
    assert contents(folder) == contents(done["normals"])


@pytest.mark.slow
def test_members_of_a_stack_are_what_they_are_alone(start, done, tmp_path):
    """They differ in their seeds and numbers of tasks."""
    members = [["NoisyLinearRegression.num_tasks = 4", "Run.seed = 3"], ["NoisyLinearRegression.num_tasks = 16"]]
    folders = [RunFolder(tmp_path / f"member_{index}") for index in range(2)]
    with StopRequest() as stop:
        specs = [RunSpec.from_config(config_of(*own), f) for own, f in zip(members, folders, strict=True)]
        assert execute(specs, stop) == [None, None]
    for own, folder in zip(members, folders, strict=True):
        alone = RunFolder(tmp_path / f"alone_{folder.path.name}")
        start(config_of(*own), alone)
        for one, other in zip(json_lines.read(folder.metrics), json_lines.read(alone.metrics), strict=True):
            np.testing.assert_allclose(one["loss"], other["loss"], rtol=1e-4)
            assert one.get("diagnostics", {}).keys() == other.get("diagnostics", {}).keys()
        for one, other in zip(*(f.latest_evaluation()["curves"] for f in (folder, alone)), strict=True):
            np.testing.assert_allclose(one["loss"], other["loss"], rtol=1e-3)


@pytest.mark.slow
def test_everything_that_logs_along_training_works(start, tmp_path):
    """A Transformer with telemetry, a curriculum, early stop, meta-tests at checkpoints, a sharded and split batch."""
    folder = RunFolder(tmp_path / "run")
    rules = ["Training.early_stop = @EarlyStop()", "EarlyStop.judged_by = 'unseen'", "EarlyStop.plateau_steps = 4"]
    rules += ["EarlyStop.converged_steps = 2", "EarlyStop.min_improvement = 0.99"]  # whatever its first losses are
    lengths = ["Training.curriculum = @Curriculum()", "Curriculum.sequence_length = @optax.linear_schedule()"]
    lengths += [f"linear_schedule.{n} = {v}" for n, v in (("init_value", 2), ("end_value", 6), ("transition_steps", 8))]
    more = ["Training.telemetry = @Telemetry()", "Telemetry.period = 4", "MetaTest.at_checkpoints = True"]
    split = ["MeshShape.data = 2", "Training.accumulation = 2"]
    start(config_of(*TRANSFORMER, *rules, *lengths, *more, *split), folder)
    rows = json_lines.read(folder.metrics)
    assert rows[-1]["stopped_early"] in ("plateau", "converged") and rows[-1]["step"] < 12
    assert any("telemetry" in row for row in rows)
    (first, *_) = (row["diagnostics"] for row in rows if "diagnostics" in row)
    assert "matching_score" in first and "same_class_attention" not in first
    assert len(list(folder.evaluations.iterdir())) >= 1


@pytest.mark.slow
def test_a_run_is_inspected_and_evaluated_again(done):
    folder = done["numbers"]
    found = inspect(folder)
    names = {metric.name for metric in found.metrics}
    assert {"loss", "unseen_loss_last", "loss, meta-test of unseen tasks, noisy_linear_regression"} <= names
    assert "drawn on the device" in found.as_text() and json.loads(found.as_json())["base_dataset"]["fingerprint"]
    now = read_status("run", folder)
    assert now.state == "done" and now.accuracy is None and now.phase == "Plateau"
    assert now.squared_error == json_lines.read(folder.metrics)[-1]["loss_last"]
    file = evaluate(folder, ("MetaTest.num_sequences = 8",))
    assert json.loads(file.read_text())["curves"][0]["num_sequences"] == 8
    before = folder.latest_evaluation()
    evaluate(folder)
    assert folder.latest_evaluation() == before


def test_reports_and_tables_show_runs_of_numbers(done, tmp_path):
    for kind, folder in done.items():
        page = report.write(folder.path, tmp_path / kind)
        assert "squared error on new sequences" in page.read_text()
        tables = write_tables.write(folder.path, tmp_path / f"tables_{kind}")
        again = report.write(tables, tmp_path / f"again_{kind}")
        assert (tmp_path / kind / "learning_curve.svg").read_bytes() == (
            again.parent / "learning_curve.svg"
        ).read_bytes()


@pytest.mark.slow
def test_a_report_of_a_sweep_draws_errors_along_sequences(done, tmp_path):
    for kind, folder in done.items():
        shutil.copytree(folder.path, tmp_path / "sweep" / kind)
    found = study.load(tmp_path / "sweep")
    assert found.table["plateau_left"].notna().all() and found.final().empty
    assert found.table["unseen_gain[noisy_linear_regression]"].notna().all()
    table = error_within_sequence.draw(found).numbers
    (curve,) = (c for c in done["normals"].latest_evaluation()["curves"] if c["tasks"] == "unseen")
    drawn = table[(table["tasks"] == "unseen") & (table["intervention"].str.contains("parameters"))]
    drawn = [rows["mean"].tolist() for _, rows in drawn.groupby("intervention")]
    assert curve["squared_error"] in drawn and len(drawn) == 2 and set(table["chance"]) == {2.01}
    page = report.write(tmp_path / "sweep").read_text()
    assert error_within_sequence._TITLE in page and "of the squared error by chance" in page
    tables = write_tables.write(tmp_path / "sweep", tmp_path / "tables")
    again = error_within_sequence.draw(study.load(tables)).numbers
    assert again.to_csv() == table.to_csv()


@pytest.mark.parametrize(
    ("bindings", "message"),
    [
        (["Run.model = @VSML()"], "VSML predicts classes only, and the targets of NoisyLinearRegression are numbers"),
        (["Run.model = @OnlineSGD()"], "OnlineSGD predicts classes only"),
        (["LSTM.num_classes = 5"], "LSTM.num_classes has no effect"),
        (["LSTM.predicts = 'normals'"], "LSTM.predicts = 'normals', but NoisyLinearRegression needs 'numbers'"),
        (["MetaTest.base_datasets = ['mnist']"], "MetaTest.base_datasets must be empty"),
        (
            [
                "Training.curriculum = @Curriculum()",
                "Curriculum.num_classes = @optax.linear_schedule()",
                "linear_schedule.init_value = 2",
                "linear_schedule.end_value = 4",
                "linear_schedule.transition_steps = 8",
            ],
            "Curriculum.num_classes: the tasks of NoisyLinearRegression have no num_classes",
        ),
        (
            ["Run.tasks = @TaskDistribution()", "LSTM.predicts = 'numbers'"],
            "targets of TaskDistribution are classes",
        ),
    ],
)
def test_what_does_not_fit_is_refused(bindings, message):
    with pytest.raises(UsageError, match=message):
        resolve(config_of(*bindings))


def test_a_learner_predicts_classes(done):
    with pytest.raises(UsageError, match="predicts numbers, and a learner predicts classes"):
        learner.load(done["numbers"].path)
