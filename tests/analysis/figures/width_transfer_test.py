"""The picture of the last loss against the learning rate, by width."""

import dataclasses
import math

import numpy as np
import pytest

from gpicl_flax.analysis.data import study
from gpicl_flax.analysis.figures import width_transfer
from gpicl_flax.records.run_folder import DIVERGED

RATES = [1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2]


def loss(parametrization, width, rate):
    """A parabola over log2 of the rate. Its minimum is at 4e-3; in the standard parametrisation at that over m."""
    best = 4e-3 / (width / 64 if parametrization == "standard" else (width / 64) ** 0.1)
    return 1.0 + 0.1 * math.log2(rate / best) ** 2


@pytest.fixture
def transfer(make_run, tmp_path):
    """Two parametrisations at widths 64 and 256; mup is the only one that config.gin names."""
    for parametrization in ("standard", "mup"):
        for width in (64, 256):
            for rate in RATES:
                bound = {"Run.optimizer": "@adam()", "adam.learning_rate": rate, "Transformer.model_size": width,
                         "Transformer.num_heads": width // 32, "Transformer.base_width": 64}  # fmt: skip
                if parametrization == "mup":
                    bound["Transformer.parametrization"] = "'mup'"
                diverges = (parametrization, width, rate) == ("standard", 256, 1.6e-2)
                make_run(
                    tmp_path / f"{parametrization}_{width}_{rate}", settings=bound, parameters=width,
                    **({"ended": DIVERGED} if diverges else {}),
                )  # fmt: skip
    found = study.load(tmp_path)
    losses = [loss(*run_id.split("_")[:1], *map(float, run_id.split("_")[1:])) for run_id in found.table["run_id"]]
    return dataclasses.replace(found, table=found.table.assign(last_loss_ema=losses))


def test_every_width_has_its_best_rate(transfer):
    table = width_transfer.numbers(transfer)
    assert len(table) == 20 and table["mean"].isna().sum() == 1  # which diverged
    panels = dict(width_transfer._panels(table))
    assert [key[-1] for key in panels] == ["standard", "mup"]
    steps = {key[-1]: width_transfer.moved(rows) for key, rows in panels.items()}
    assert steps["standard"] == pytest.approx(-2) and steps["mup"] == pytest.approx(-0.2)


def test_the_caption_says_by_how_much_it_moves(transfer):
    chart = width_transfer.draw(transfer)
    words = "from width 64 to 256 the best rate moves by"
    assert f"mup, Transformer, digits: {words} -0.2 steps of the grid, less than one step." in chart.caption
    assert (
        f"standard, Transformer, digits: {words} -2.0 steps of the grid, not less than one step; some" in chart.caption
    )
    standard, mup = chart.figure.axes
    assert standard.get_title().startswith("standard") and mup.get_title().startswith("mup")
    stars = [line.get_xdata()[0] for line in mup.get_lines() if line.get_marker() == "*"]
    np.testing.assert_allclose(stars, [4e-3, 4e-3 / 4**0.1])
    assert [text.get_text() for text in chart.figure.legends[0].get_texts()] == ["width 64", "width 256"]


def test_the_best_rate_is_the_vertex_of_a_parabola_inside_the_grid():
    rates = np.array(RATES)
    for best in (2.2e-3, 4e-3, 6e-3):
        found = width_transfer.optimum(rates, 1 + np.log(rates / best) ** 2)
        assert found.rate == pytest.approx(best) and not found.at_edge
    assert width_transfer.optimum(rates, np.array([1.0, 2, 3, 4, 5])) == (1e-3, 1.0, True)
    # Beside a rate that diverged it is the lowest loss itself.
    assert width_transfer.optimum(rates, np.array([3, 2, 1.0, np.nan, np.nan])).rate == 4e-3


def test_one_width_is_no_transfer(make_run, tmp_path):
    for rate in RATES:
        bound = {"Run.optimizer": "@adam()", "adam.learning_rate": rate, "Transformer.model_size": 64}
        make_run(tmp_path / str(rate), settings=bound)
    chart = width_transfer.draw(study.load(tmp_path))
    assert chart.figure is None and chart.caption.startswith("Needs runs alike but for two widths")
