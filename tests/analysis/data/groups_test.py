import pandas as pd
import pytest

from gpicl_flax.analysis.data import groups, runs, study


@pytest.fixture
def grouped(tmp_path, make_run):
    def load(*run_info):
        for index, each in enumerate(run_info):
            make_run(tmp_path / str(index), **each)
        return groups.grouped(runs.load(tmp_path))

    return load


def labelled(**labels):
    return {"labels": labels}


def test_labels_name_interventions_and_panels(grouped):
    table = grouped(
        labelled(intervention="paper", dataset="digits", model="small"),
        labelled(intervention="matched", dataset="digits", model="small"),
        labelled(intervention="matched", dataset="mnist_28x28", model="small"),
    )
    assert table["intervention"].tolist() == ["paper", "matched", "matched"]
    assert table["panel"].tolist() == ["digits", "digits", "mnist_28x28"]  # the size does not vary


def test_sizes_and_other_axes_divide_panels_where_they_vary(grouped):
    table = grouped(
        labelled(intervention="paper", dataset="digits", model="small", tokens="aligned"),
        labelled(intervention="paper", dataset="digits", model="large", tokens="shifted"),
    )
    assert table["panel"].tolist() == ["digits, small, tokens aligned", "digits, large, tokens shifted"]


def test_without_labels_models_are_compared(grouped):
    table = grouped({"model": "LSTM"}, {"model": "Transformer"}, {"model": "Transformer", "parameters": 2000})
    assert table["intervention"].tolist() == ["LSTM", "Transformer, 1,000 parameters", "Transformer, 2,000 parameters"]
    assert table["panel"].tolist() == ["digits"] * 3


def test_the_number_of_tasks_divides_panels_unless_it_is_what_an_intervention_changes(grouped):
    few, many = {"num_tasks": 64}, {"num_tasks": None}
    paper, other = labelled(intervention="paper"), labelled(intervention="other")
    table = grouped(paper | few, other | many)
    assert table["panel"].tolist() == ["digits", "digits"]
    table = grouped(paper | few, other | many, paper | many)
    assert table["panel"].tolist() == ["digits, 2^6 tasks", "digits, unbounded tasks", "digits, unbounded tasks"]
    assert table["setting"].tolist() == ["digits"] * 3


def test_labels_that_name_numbers_of_tasks_do_not_divide_settings(grouped):
    table = grouped(
        labelled(intervention="paper", tasks="few") | {"num_tasks": 100},
        labelled(intervention="paper", tasks="many") | {"num_tasks": 1000},
    )
    assert table["setting"].tolist() == ["digits", "digits"]
    assert table["panel"].tolist() == ["digits, 100 tasks", "digits, 1,000 tasks"]


def test_bindings_divide_settings_where_runs_would_pass_for_repetitions(grouped):
    def run(seed, *more):
        return {"config": "\n".join([f"Run.seed = {seed}", "Run.model = @LSTM()", *more]), "seed": seed}

    slow, fast = (f"adam.learning_rate = {rate}" for rate in (1e-3, 3e-3))
    table = grouped(run(0, slow), run(1, slow), run(0, fast), run(0))
    settings = ["digits, learning_rate = 0.001"] * 2 + ["digits, learning_rate = 0.003", "digits"]
    assert table["setting"].tolist() == table["panel"].tolist() == settings


def test_bindings_of_an_intervention_do_not_divide_settings(grouped):
    paper = labelled(intervention="paper") | {"config": "Run.seed = 0"}
    other = labelled(intervention="other") | {"config": "Run.seed = 0\nadam.eps_root = 0.0"}
    assert grouped(paper, other)["panel"].tolist() == ["digits", "digits"]


def test_a_run_without_facts_is_in_no_group(grouped, make_run, tmp_path):
    make_run(tmp_path / "damaged").run_info.unlink()
    table = grouped(labelled(intervention="paper"))
    assert table["panel"].isna().tolist() == [False, True] and table["intervention"].isna().tolist() == [False, True]


def test_the_baseline_comes_first_and_then_the_shortest_plateau(make_run, tmp_path):
    for name, left_at in (("paper", None), ("slow", 80), ("fast", 20), ("never", None)):
        make_run(tmp_path / name, left_at=left_at, diagnostics_period=None, **labelled(intervention=name))
    assert study.load(tmp_path).interventions == ["paper", "fast", "slow", "never"]


def test_a_study_is_divided_by_panels_in_the_order_of_the_numbers_of_tasks(make_run, tmp_path):
    for num_tasks in (None, 128, 1024, 16):
        make_run(tmp_path / str(num_tasks), num_tasks=num_tasks)
    of = study.load(tmp_path)
    assert of.parts("panel", 4) == [of] and of.parts("setting", 1) == [of]
    names = [part.table["num_tasks"].tolist() for part in of.parts("panel", 2)]
    assert [sorted(name) for name in names] == [[16, 128], [1024, float("inf")]]


def test_numbers_are_short():
    values = pd.Series([2**13, 1000, 3, 0.1, float("inf")])
    assert values.map(groups.number).tolist() == ["2^13", "1,000", "3", "0.1", "unbounded"]


def test_conditions_name_what_axes_do_not(grouped):
    table = grouped(
        {"num_tasks": 16, "settings": {"adam.eps": 1e-8}},
        {"num_tasks": 16, "settings": {"adam.eps": 1e-16}, "ended": None},
        {"num_tasks": 256, "settings": {"adam.eps": 1e-8}, "seed": 1},
    )
    assert groups.conditions(table, ["num_tasks"]).tolist() == ["eps = 1e-08", "eps = 1e-16", "eps = 1e-08"]
    assert groups.conditions(table, ["num_tasks", "eps"]).tolist() == ["", "", ""]


def test_runs_that_are_compared_across_tasks_differ_in_nothing_else(grouped):
    few, many = (
        {"num_tasks": n, "labels": {"tasks": name}, "settings": {"TaskDistribution.num_tasks": n}}
        for n, name in ((16, "few"), (256, "many"))
    )
    assert groups.conditions(grouped(few, many), ["model"], across_tasks=True).tolist() == ["", ""]
    matched = many | {"labels": {"intervention": "matched"}}
    assert groups.conditions(grouped(few, matched), ["model"], across_tasks=True).tolist() == ["", "matched"]
