"""Fig 6 and 13, and the verdict on state size and parameter count, from run folders."""

import math

import numpy as np
import pytest
import scipy.stats

from gpicl_flax.analysis.data import configurations, study
from gpicl_flax.analysis.data.configurations import PARAMETERS, STATE_EXACT, STATE_PAPER
from gpicl_flax.analysis.figures import fig06_size_predictors, fig06_state_size
from gpicl_flax.analysis.stats import predictors

# Architectures with state sizes and parameter counts that go their own ways.
MODELS = {
    "LSTM": [(16, 5_000), (64, 50_000), (256, 600_000), (1024, 9_000_000)],
    "OuterProductLSTM": [(16, 1_000), (256, 8_000), (4096, 80_000), (16_384, 90_000)],
    "Transformer": [(400, 2_200_000), (1600, 2_300_000), (6400, 2_700_000), (12_800, 3_200_000)],
}


@pytest.fixture
def make_sizes(make_run, make_curve, tmp_path):
    """Writes runs of `MODELS` whose accuracy a function of state size, parameters and seed tells."""

    def make(accuracy, seeds=1, models=MODELS, **run_info):
        for model, sizes in models.items():
            for state, parameters in sizes:
                for seed in range(seeds):
                    last = accuracy(state, parameters, seed)
                    curves = [
                        make_curve("seen", last=last),
                        make_curve("unseen", last=last - 0.05),
                        make_curve("unseen", "other", last=last / 2),
                    ]
                    make_run(
                        tmp_path / f"{model}_{state}_{seed}",
                        model=model,
                        state_size_paper=state,
                        state_size_exact=2 * state,
                        parameters=parameters,
                        seed=seed,
                        evaluations={50: [make_curve("seen", last=0.99)], 100: curves},
                        diagnostics_period=None,
                        **run_info,
                    )
        return tmp_path

    return make


def by_state(state, parameters, seed):
    return 0.1 + 0.05 * math.log2(1 + state) + 0.01 * seed


def by_parameters(state, parameters, seed):
    return 0.1 + 0.03 * math.log2(1 + parameters) + 0.01 * seed


def test_a_row_for_each_test_and_columns_for_both_sizes(make_sizes):
    chart = fig06_state_size.draw(study.load(make_sizes(by_state, seeds=3)))
    titles = [axes.get_title() for axes in chart.figure.axes]
    other = "unseen tasks of other, a dataset not trained on"
    assert titles == ["seen tasks of digits"] * 2 + ["unseen tasks of digits"] * 2 + [other] * 2
    left, right = chart.figure.axes[:2]
    for axes, place in ((left, 0), (right, 1)):
        drawn = [line for line in axes.get_lines() if line.get_marker() != "None"]
        assert len(drawn) == len(MODELS) and len({line.get_marker() for line in drawn}) == 3
        for line, sizes in zip(drawn, MODELS.values(), strict=True):  # both in the order of their names
            np.testing.assert_allclose(line.get_xdata(), np.log2([size[place] for size in sizes]))
            np.testing.assert_allclose(line.get_ydata(), [by_state(*size, 1) for size in sizes])
        assert [line.get_ydata()[0] for line in axes.get_lines() if line.get_linestyle() == ":"] == [0.1]
    names = [text.get_text() for text in chart.figure.legends[0].get_texts()]
    assert names == ["LSTM", "OuterProductLSTM", "Transformer", "chance"]
    assert "3 to 3 of them) with Student's 95% interval over seeds" in chart.caption


def test_intervals_are_over_seeds_or_else_over_sequences(make_sizes):
    table = configurations.table(study.load(make_sizes(by_state, seeds=3)))
    row = table.query("architecture == 'LSTM' and state_size_paper == 16 and tasks == 'seen'").iloc[0]
    values = [by_state(16, 0, seed) for seed in range(3)]
    margin = scipy.stats.ttest_1samp(values, 0).confidence_interval().high - sum(values) / 3
    margin = max(margin, 0.05 / 3**0.5)  # of the sequences together
    assert (row["seeds"], row["interval"]) == (3, "seeds")
    assert (row["accuracy_low"], row["accuracy_high"]) == pytest.approx(
        (row["accuracy"] - margin, row["accuracy"] + margin)
    )
    for path in make_sizes(by_state).glob("*_[12]"):
        (path / "DONE").unlink()
    of = study.load(path.parent)
    row = (
        configurations.table(of).query("architecture == 'LSTM' and state_size_paper == 16 and tasks == 'seen'").iloc[0]
    )
    assert (row["seeds"], row["interval"]) == (1, "sequences")
    assert row["accuracy_high"] - row["accuracy"] == pytest.approx(0.05)  # the meta-test's own
    caption = fig06_state_size.draw(of).caption
    assert "one seed each" in caption and "no seeds are in it" in caption and "24 of 36 runs are left out" in caption


def test_a_model_without_state_and_a_baseline_without_parameters_have_a_place(make_sizes):
    models = MODELS | {"MLP": [(0, 1_000_000)], "OnlineSGD": [(2000, 0)]}
    chart = fig06_state_size.draw(study.load(make_sizes(by_state, models=models)))
    left, right = chart.figure.axes[:2]
    assert "0" in [text.get_text() for text in chart.figure.axes[-2].get_xticklabels()]
    no_state, baseline = (
        [line for line in axes.get_lines() if line.get_xdata()[0] == pytest.approx(math.log2(smallest) - 2)]
        for axes, smallest in ((left, 16), (right, 1000))
    )
    assert len(no_state) == len(baseline) == 1 and baseline[0].get_markerfacecolor() == "white"
    assert "OnlineSGD (baseline)" in [text.get_text() for text in chart.figure.legends[0].get_texts()]


def test_unfinished_and_diverged_runs_do_not_count(make_sizes, make_run, make_curve):
    folder = make_sizes(by_state)
    for name, ended in (("begun", None), ("diverged", "DIVERGED")):
        evaluations = {100: [make_curve("seen", last=0.01)]}
        make_run(folder / name, model="LSTM", parameters=7, state_size_paper=8, ended=ended, evaluations=evaluations)
    make_run(folder / "untold", evaluations={}).run_info.unlink()
    chart = fig06_state_size.draw(study.load(folder))
    assert chart.numbers["accuracy"].min() > 0.1
    assert "3 of 15 runs are left out" in chart.caption


def test_damaged_accuracies_do_not_count(make_sizes):
    folder = make_sizes(by_state)
    file = folder / "LSTM_16_0" / "eval" / "step_00000100.json"
    file.write_text(file.read_text().replace("0.1,", "NaN,").replace("]", ", NaN]"))
    table = configurations.table(study.load(folder))
    assert (
        table["accuracy"].notna().all()
        and 16 in table.query("architecture == 'OuterProductLSTM'")[STATE_PAPER].tolist()
    )


def test_runs_of_one_size_are_not_drawn(make_run, tmp_path):
    for seed in range(2):
        make_run(tmp_path / str(seed), seed=seed)
    of = study.load(tmp_path)
    chart = fig06_state_size.draw(of)
    assert chart.figure is None and "Needs runs that are done, of at least two state sizes" in chart.caption
    chart = fig06_size_predictors.draw(of)
    assert chart.figure is None and "Needs at least 6 configurations whose runs are done" in chart.caption


def test_the_state_that_is_drawn_can_be_chosen(make_sizes):
    chart = fig06_state_size.draw(study.load(make_sizes(by_state)), state=STATE_EXACT)
    assert chart.figure.axes[0].get_lines()[1].get_xdata().tolist() == [5, 7, 9, 11]
    assert chart.figure.axes[-2].get_xlabel() == "state size (all numbers kept), log scale"


@pytest.mark.parametrize("accuracy, verdict", [(by_state, "state"), (by_parameters, "parameters")])
def test_the_verdict_over_all_architectures(make_sizes, accuracy, verdict):
    chart = fig06_size_predictors.draw(study.load(make_sizes(accuracy, seeds=2)))
    table = chart.numbers
    assert table.query("scope == 'all architectures'")["verdict"].unique().tolist() == [verdict]
    rows = table.query("scope == 'all architectures' and tasks == 'seen' and state == 'state_size_paper'")
    best = STATE_PAPER if verdict == "state" else PARAMETERS
    assert rows.set_index("predictor")["spearman"].idxmax() == best and rows["seeds"].tolist() == [24, 24]
    assert rows["configurations"].tolist() == [12, 12]
    assert f"Seen tasks of digits: {rows['sentence'].iloc[0]} The verdict is the same with all numbers" in chart.caption
    assert len(chart.figure.axes) == 3 and "one seed" not in chart.caption


def test_within_an_architecture_sizes_cannot_be_separated(make_sizes):
    models = {"LSTM": [(2**n, 5 * 4**n) for n in range(4, 11)]}
    chart = fig06_size_predictors.draw(study.load(make_sizes(by_state, models=models)))
    assert chart.numbers["scope"].unique().tolist() == ["LSTM"]
    assert chart.numbers["verdict"].unique().tolist() == [predictors.COLLINEARITY]
    assert "cannot be separated by these runs" in chart.caption and "There is one seed" in chart.caption
    axes = chart.figure.axes[0]
    markers = [line for line in axes.get_lines() if line.get_marker() in set("oDs")]
    assert len(markers) == 3 and {line.get_markerfacecolor() for line in markers} == {"white"}


def test_baselines_take_no_part_in_the_verdict(make_sizes):
    of = study.load(make_sizes(by_state, models=MODELS | {"OnlineSGD": [(2000, 0)]}))
    assert set(fig06_size_predictors.draw(of).numbers["scope"]) == {"all architectures", *MODELS}
    assert fig06_size_predictors.draw(of).numbers.query("scope == 'all architectures'")["configurations"].unique() == [
        12
    ]
