"""The accuracies in context and in weights, from the log of a run to the report."""

import json

import numpy as np
import pytest

from gpicl_flax.analysis.data import study, write_tables
from gpicl_flax.analysis.figures import in_context_in_weights
from gpicl_flax.analysis.figures.chart import COLOURS
from gpicl_flax.analysis.report import tables
from gpicl_flax.analysis.report.run_summary import plateau_sentence

STEPS = [20, 40, 60, 80, 100]
LOST, KEPT = [0.1, 0.9, 0.8, 0.4, 0.2], [0.1, 0.5, 0.8, 0.9, 0.9]


@pytest.fixture
def make_accurate(make_run, tmp_path):
    """(in_context, seed, intervention) -> a run with these accuracies in context, and 0.5 in weights."""

    def make(in_context, seed=0, intervention="bursty"):
        path = tmp_path / f"{intervention}_{seed}"
        folder = make_run(path, seed=seed, labels={"intervention": intervention})
        rows = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
        for row in rows:
            if "diagnostics" in row:
                accuracy = in_context[STEPS.index(row["step"])]
                row["diagnostics"] |= {"in_context_accuracy": accuracy, "in_weights_accuracy": 0.5}
        folder.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return folder

    return make


def test_lines_are_the_accuracies_and_a_mark_where_they_are_lost(make_accurate, tmp_path):
    make_accurate(LOST), make_accurate(KEPT, seed=1), make_accurate([0.1] * 5, intervention="never")
    drawn = in_context_in_weights.draw(study.load(tmp_path))
    (axes,) = drawn.figure.axes
    bursty = [line for line in axes.get_lines() if line.get_color() == COLOURS[0] and line.get_linewidth() > 1.5]
    in_context, in_weights, *marks = bursty
    np.testing.assert_array_equal(in_context.get_xdata(), STEPS)
    np.testing.assert_allclose(in_context.get_ydata(), np.mean([LOST, KEPT], axis=0))
    np.testing.assert_allclose(in_weights.get_ydata(), 0.5)
    marked = [line for line in axes.get_lines() if line.get_marker() == "v"]
    assert [(*line.get_xdata(), *line.get_ydata()) for line in marked] == [(80, 0.4)]
    assert len(axes.collections) == 2  # bands of the two accuracies of the intervention with two seeds
    texts = [text.get_text() for text in drawn.figure.legends[0].get_texts()]
    assert {"bursty", "never", "in context", "in weights", "lost in context"} <= set(texts)
    assert drawn.numbers.query("run_id == 'never_0'")["in_context_accuracy"].tolist() == [0.1] * 5


def test_runs_without_these_accuracies_have_no_figure_and_no_column(make_run, tmp_path):
    make_run(tmp_path / "run")
    found = study.load(tmp_path)
    chart = in_context_in_weights.draw(found)
    assert chart.figure is None and "Diagnostics.class_accuracies = True" in chart.caption
    assert "transience_step" not in found.table and "in context lost at" not in tables.runs(found).numbers


def test_tables_of_a_study_keep_them(make_accurate, tmp_path):
    make_accurate(LOST), make_accurate(KEPT, seed=1)
    found = study.load(tmp_path)
    again = study.load(write_tables.write(tmp_path, tmp_path / "tables"))
    for each in (found, again):
        assert each.table.set_index("run_id")["transience_step"].fillna(-1).to_dict() == {
            "bursty_0": 80,
            "bursty_1": -1,
        }
        assert tables.runs(each).numbers["in context lost at"].tolist() == ["80", ""]
    np.testing.assert_array_equal(again.class_accuracies, found.class_accuracies)


def test_the_summary_of_a_run_says_when_it_was_lost(make_accurate, make_run, tmp_path):
    assert "Learning in context, best at step 40, was lost by step 80." in plateau_sentence(make_accurate(LOST))
    assert "No learning in context was lost." in plateau_sentence(make_accurate(KEPT, seed=1))
    assert "in context" not in plateau_sentence(make_run(tmp_path / "other"))
