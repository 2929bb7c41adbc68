"""The picture of all settings: their losses, their curves, and where they left the plateau."""

import math

import numpy as np
import pytest

from gpicl_flax.analysis.data import study
from gpicl_flax.analysis.figures import settings_compared
from gpicl_flax.records.run_folder import write_json


@pytest.fixture
def models(make_run, make_curve, tmp_path):
    """Two LSTMs that leave at 30 and 50 and end at an accuracy of 0.6 and 0.8, and a Mamba2 that does not leave."""
    for seed, (left_at, last) in enumerate(((30, 0.6), (50, 0.8))):
        tested = {100: [make_curve("seen"), make_curve("unseen", last=last)]}
        run = {"left_at": left_at, "evaluations": tested, "diagnostics_period": None}
        make_run(tmp_path / f"lstm{seed}", model="LSTM", seed=seed, **run)
    make_run(tmp_path / "mamba", model="Mamba2", left_at=None, diagnostics_period=None)
    return study.load(tmp_path)


def test_every_setting_has_a_loss_and_a_curve(models):
    chart = settings_compared.draw(models)
    losses, tests = chart.figure.axes
    lstm, circle, mamba, chance = losses.get_lines()  # the lowest last loss comes first
    np.testing.assert_allclose(lstm.get_ydata(), [2.25, 2.25, (2.25 + 1.5) / 2, (2.25 + 1.5) / 2, *[1.5] * 6])
    np.testing.assert_allclose(mamba.get_ydata(), [2.25] * 10)
    assert chance.get_ydata()[0] == math.log(10)
    curve = tests.get_lines()[0]
    np.testing.assert_allclose(curve.get_ydata(), (np.linspace(0.1, 0.6, 5) + np.linspace(0.1, 0.8, 5)) / 2)
    np.testing.assert_array_equal(curve.get_xdata(), range(5))
    assert [text.get_text() for text in tests.get_legend().get_texts()] == ["LSTM", "Mamba2", "chance"]
    # The median of 30 and 50, by the rule of survival: the first step at which half have left.
    assert circle.get_xdata() == [30]


def test_the_numbers_say_who_left(models):
    left = settings_compared.numbers(models).groupby("setting")["left"].first()
    assert left["LSTM"] == 30 and left["Mamba2"] == math.inf


def test_a_setting_that_is_not_tested_yet_has_its_losses_alone(make_run, tmp_path):
    make_run(tmp_path / "lstm", model="LSTM", ended=None, evaluations={})
    make_run(tmp_path / "mamba", model="Mamba2")
    losses, tests = settings_compared.draw(study.load(tmp_path)).figure.axes
    assert len(losses.get_lines()) == 2 + 1  # with chance
    assert [len(line.get_xdata()) for line in tests.get_lines()[:2]] == [0, 5]


def test_one_setting_is_no_comparison(make_run, tmp_path):
    for seed in (0, 1):
        make_run(tmp_path / str(seed), seed=seed)
    chart = settings_compared.draw(study.load(tmp_path))
    assert chart.figure is None and chart.caption == "Needs runs of several settings."


def test_datasets_have_rows_of_their_own_and_numbers_their_errors(make_run, tmp_path):
    targets = {"predicts": "numbers", "score": "loss", "unit": "squared error", "chance_loss": 8.0, "chance_score": 8.0}
    errors = [8.0, 6.0, 4.0]
    curve = {"loss": errors, "loss_low": errors, "loss_high": errors}
    for model in ("LSTM", "Mamba2"):
        make_run(tmp_path / model, model=model)
        tested = {100: [{"base_dataset": "waves", "tasks": "unseen", "num_sequences": 64} | curve]}
        run = {"targets": targets, "base_dataset": {"name": "waves"}, "evaluations": tested}
        folder = make_run(tmp_path / f"{model}_numbers", model=model, **run)
        run_info = folder.read_run_info()
        write_json(folder.run_info, {key: value for key, value in run_info.items() if key != "num_classes"})
    axes = settings_compared.draw(study.load(tmp_path)).figure.axes
    assert [each.get_title() for each in axes] == ["digits", "unseen tasks, digits", "waves", "unseen tasks, waves"]
    assert axes[1].get_ylabel() == "accuracy" and axes[3].get_ylabel() == "squared error"
    np.testing.assert_array_equal(axes[3].get_lines()[0].get_ydata(), errors)
