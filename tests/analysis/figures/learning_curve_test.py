import math

import numpy as np
import pytest

from gpicl_flax.analysis.figures import learning_curve
from gpicl_flax.analysis.report import run_summary
from gpicl_flax.records.json_lines import JsonLines
from gpicl_flax.records.run_folder import RunFolder, write_json

T = 5


def curve(tasks, dataset="digits", last=0.7):
    accuracy = np.linspace(0.1, last, T)
    return {
        "base_dataset": dataset, "tasks": tasks, "num_sequences": 64,
        "accuracy": accuracy.tolist(),
        "accuracy_low": (accuracy - 0.05).tolist(),
        "accuracy_high": (accuracy + 0.04).tolist(),
    }  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """A synthetic run whose average loss falls under 2.2 at step 30."""
    folder = RunFolder(tmp_path / "run")
    write_json(
        folder.run_info,
        {"model": "LSTM", "steps": 40, "num_classes": 10, "sequence_length": T, "base_dataset": {"name": "digits"}},
    )
    log = JsonLines(folder.metrics)
    for step, loss in ((10, 2.3), (20, 2.25), (30, 2.1), (40, 1.5)):
        log.append({"step": step, "loss": loss - 0.1, "loss_ema": loss, "accuracy_last": 0.1, "plateau": loss >= 2.2})
    log.flush()
    write_json(folder.evaluation(40), {"step": 40, "curves": [curve("seen"), curve("unseen", last=0.6)]})
    return folder


def lines(axes):
    return {line.get_label(): line for line in axes.get_lines()}


def test_the_left_panel_shows_each_curve_against_the_examples_seen_before_it(folder):
    left, _ = learning_curve.draw(folder, folder.latest_evaluation()).axes
    drawn = lines(left)
    np.testing.assert_array_equal(drawn["unseen tasks, digits"].get_xdata(), range(T))
    np.testing.assert_allclose(drawn["unseen tasks, digits"].get_ydata(), np.linspace(0.1, 0.6, T))
    assert drawn["chance"].get_ydata()[0] == 0.1
    bands = [collection.get_datalim(left.transData) for collection in left.collections]
    assert sorted(round(band.y1, 6) for band in bands) == [0.64, 0.74]
    assert min(band.y0 for band in bands) == pytest.approx(0.05)
    assert drawn["seen tasks, digits"].get_color() != drawn["unseen tasks, digits"].get_color()


def test_the_right_panel_shows_the_loss_and_where_the_plateau_was_left(folder):
    _, right = learning_curve.draw(folder, folder.latest_evaluation()).axes
    drawn = lines(right)
    np.testing.assert_allclose(drawn["training loss"].get_ydata(), [2.2, 2.15, 2.0, 1.4])
    assert list(drawn["plateau left by step 30"].get_xdata()) == [30, 30]
    assert drawn["chance, ln 10"].get_ydata()[0] == pytest.approx(math.log(10))


def test_several_base_datasets_have_a_colour_each_and_a_line_style_for_their_tasks(folder):
    curves = [curve(tasks, dataset) for dataset in ("digits", "other") for tasks in ("seen", "unseen")]
    write_json(folder.evaluation(40), {"step": 40, "curves": curves})
    drawn = lines(learning_curve.draw(folder, folder.latest_evaluation()).axes[0])
    styles = {name: (line.get_color(), line.get_linestyle()) for name, line in drawn.items() if "tasks" in name}
    assert len(set(styles.values())) == 4
    assert styles["seen tasks, digits"][0] == styles["unseen tasks, digits"][0]
    assert styles["seen tasks, digits"][1] == styles["seen tasks, other"][1]


def test_a_run_without_a_meta_test_and_still_on_its_plateau_is_drawn_too(folder):
    folder.evaluation(40).unlink()
    log = JsonLines(folder.metrics)
    log.replace(log.rows_until(20))
    figure = learning_curve.draw(folder, folder.latest_evaluation())
    assert figure.axes[1].get_title() == "still on the plateau"
    assert "not left in 20 steps" in run_summary.summary(folder, folder.latest_evaluation())


def test_the_picture_is_saved_in_the_folder(folder):
    learning_curve.save(folder, folder.latest_evaluation(), folder.learning_curve)
    assert folder.learning_curve.read_bytes().startswith(b"\x89PNG")


def test_the_summary_is_a_table_of_first_and_last_position(folder):
    summary = run_summary.summary(folder, folder.latest_evaluation()).split("\n")
    assert summary[0].startswith("The plateau was left by step 30")
    assert summary[1].split("  ")[0] == "meta-test accuracy" and summary[1].endswith("example 5")
    assert "10.0% [5.0%, 14.0%]" in summary[3] and "60.0% [55.0%, 64.0%]" in summary[3]
    assert summary[3].startswith("unseen tasks, digits")
    assert "64 sequences" in summary[4]


def test_a_run_of_no_steps_shows_its_meta_test_alone(folder):
    write_json(folder.run_info, folder.read_run_info() | {"model": "OnlineSGD", "steps": 0})
    folder.metrics.unlink()
    figure = learning_curve.draw(folder, folder.latest_evaluation())
    (accuracy,) = figure.axes
    assert {"seen tasks, digits", "unseen tasks, digits", "chance"} == set(lines(accuracy))
    assert figure.get_suptitle() == "OnlineSGD, not meta-trained"
    assert run_summary.summary(folder, folder.latest_evaluation()).startswith("Not meta-trained")


def test_references_stand_at_their_own_positions_with_their_intervals(folder):
    unseen = curve("unseen", last=0.6)
    ends = {"accuracy_low": [0.05] * T, "accuracy_high": [0.9] * T}
    of_few = {"accuracy": [0.2, 0.3], "positions": [1, 4]}
    unseen["references"] = {"ridge": {"accuracy": [0.1] * T} | ends, "SVM": of_few}
    write_json(folder.evaluation(40), {"step": 40, "curves": [unseen]})
    left, _ = learning_curve.draw(folder, folder.latest_evaluation()).axes
    drawn = lines(left)
    assert list(drawn["ridge"].get_xdata()) == [*range(T)] and list(drawn["SVM"].get_xdata()) == [1, 4]
    model, ridge = left.collections
    assert ridge.get_paths()[0].vertices[:, 1].max() == 0.9 > model.get_paths()[0].vertices[:, 1].max()


def test_chance_is_called_a_logarithm_where_it_is_one(folder):
    assert "chance, ln 10" in lines(learning_curve.draw(folder, folder.latest_evaluation()).axes[1])
    level = {"chance_loss": 2.0, "chance_score": 0.15}
    targets = {"predicts": "classes", "score": "accuracy", "unit": "nats"} | level
    write_json(folder.run_info, folder.read_run_info() | {"targets": targets})
    drawn = lines(learning_curve.draw(folder, folder.latest_evaluation()).axes[1])
    assert drawn["chance"].get_ydata()[0] == 2.0
