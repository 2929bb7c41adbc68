"""Distances from references, as they are read and drawn."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from gpicl_flax.analysis.data import distances, one_run, read_tables, study, write_tables
from gpicl_flax.analysis.figures import reference_distances


def with_references(make_curve, **means):
    """The evaluation of a run, with curves of references at these mean distances."""
    curve = make_curve("unseen")
    shape = np.linspace(0.5, 1.5, 5)
    references = {name: {"accuracy": [0.5] * 5, "distance": (mean * shape).tolist()} for name, mean in means.items()}
    return {100: [make_curve("seen"), curve | {"references": references}]}


@pytest.fixture
def tasks(make_run, make_curve, tmp_path):
    """Two seeds with 4 tasks, near dMMSE, and two with unbounded tasks, near ridge."""
    for num_tasks, dmmse, ridge in ((4, 1.0, 4.0), (None, 3.0, 0.5)):
        for seed in (0, 1):
            tested = with_references(make_curve, dMMSE=dmmse + seed, ridge=ridge)
            make_run(tmp_path / f"{num_tasks}_{seed}", num_tasks=num_tasks, seed=seed, evaluations=tested)
    return study.load(tmp_path)


def test_a_run_has_the_mean_distance_of_its_last_meta_test_and_of_each_diagnosis(make_run, make_curve, tmp_path):
    run = one_run.read(make_run(tmp_path / "run", evaluations=with_references(make_curve, ridge=2.0)))
    run = dataclasses.replace(run, diagnostics={20: {"distances": {"ridge": 5.0}}, 40: {}, 60: {"distances": None}})
    assert distances.table(run).values.tolist() == [
        ["run", "diagnostics", 20, "ridge", 5.0],
        ["run", "meta-test", 100, "ridge", pytest.approx(2.0)],
    ]


def test_scores_have_no_distance(make_run, make_curve, tmp_path):
    tested = {100: [make_curve("unseen") | {"references": {"nearest neighbour": {"accuracy": [0.5] * 5}}}]}
    assert distances.table(one_run.read(make_run(tmp_path / "run", evaluations=tested))).empty


def test_distances_are_drawn_against_the_number_of_tasks(tasks):
    chart = reference_distances.draw_tasks(tasks)
    (axes,) = chart.figure.axes
    lines = {line.get_label(): line for line in axes.get_lines()}
    np.testing.assert_allclose(lines["dMMSE"].get_ydata(), [1.5, 3.5])
    np.testing.assert_allclose(lines["ridge"].get_ydata(), [4.0, 0.5])
    assert lines["dMMSE"].get_xdata()[0] == 2 and lines["dMMSE"].get_xdata()[1] > 2
    assert lines["published crossover"].get_xdata()[0] == 14 and "Raventos" in chart.caption
    assert chart.numbers["runs"].tolist() == [2] * 4


def test_other_references_have_no_published_crossover(make_run, make_curve, tmp_path):
    for num_tasks in (4, 8):
        make_run(tmp_path / str(num_tasks), num_tasks=num_tasks, evaluations=with_references(make_curve, Bayes=1.0))
    chart = reference_distances.draw_tasks(study.load(tmp_path))
    assert [line.get_label() for line in chart.figure.axes[0].get_lines()] == ["Bayes"]
    assert "Raventos" not in chart.caption


def test_distances_are_drawn_along_training_for_each_number_of_tasks(tasks):
    rows = [
        (run_id, distances.DIAGNOSED, step, name, far / step)
        for run_id in tasks.table["run_id"]
        for step in (20, 40)
        for name, far in (("dMMSE", 40.0), ("ridge", 80.0))
    ]
    drawn = dataclasses.replace(tasks, distances=pd.DataFrame(rows, columns=distances.COLUMNS))
    axes = reference_distances.draw_steps(drawn).figure.axes
    assert [each.get_title() for each in axes] == ["4 tasks", "unbounded tasks"]
    for each in axes:
        lines = {line.get_label(): line.get_ydata().tolist() for line in each.get_lines()}
        assert lines == {"dMMSE": [2.0, 1.0], "ridge": [4.0, 2.0]}


def test_without_references_there_is_a_line_of_words(make_run, tmp_path):
    make_run(tmp_path / "run")
    one = study.load(tmp_path)
    assert "distances from references" in reference_distances.draw_steps(one).caption
    assert "several numbers of tasks" in reference_distances.draw_tasks(one).caption


def test_tables_keep_them(tasks, tmp_path):
    write_tables.write(tmp_path, tmp_path / "tables")
    kept = read_tables.read(tmp_path / "tables").runs.distances
    own = [column for column in distances.COLUMNS if column != "distance"]
    assert kept[own].values.tolist() == tasks.distances[own].values.tolist()
    np.testing.assert_allclose(kept["distance"], tasks.distances["distance"], rtol=1e-6)
