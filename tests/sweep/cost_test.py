import json

import pytest

from gpicl_flax.config import parse
from gpicl_flax.errors import UsageError
from gpicl_flax.sweep import cost, grid, listing
from gpicl_flax.training.cost import chips

B, T, X, C = 8, 6, 16, 10  # of small_bindings


@pytest.fixture
def resolve(small_bindings):
    """Grids and more bindings -> points and their settings."""

    def make(grids, *bindings):
        points = grid.points(parse([], [*small_bindings, *bindings, f"sweep.grids = {grids}"]))
        return points, listing.resolve_all(points)

    return make


def rows(points, runs, chip="v5e", **settings):
    return cost.budget(points, runs, chip=chips.chip(chip), **settings)


def test_flops_of_an_mlp_are_those_of_its_products_forward_and_backward(resolve):
    (row,) = rows(
        *resolve("[{'Run.model': @MLP(), 'MLP.hidden_size': 32, 'Training.steps': 100, 'Run.seed': [0, 1, 2]}]")
    )
    layers = [X * 32, 32 * 32, 32 * C]
    projection = X * X
    # Backward, each layer makes the gradient of its weights and, but for the first, that of its inputs.
    assert row.step_flops == 2 * B * T * (3 * sum(layers) - layers[0] + projection)
    assert row.flops == row.step_flops * 100 * 3
    assert (row.steps, len(row.points), row.turns, row.name) == (100, 3, 0, "MLP")


def test_flops_of_an_lstm_hold_those_of_all_positions(resolve):
    (row,) = rows(*resolve("[{'Run.model': @LSTM(), 'LSTM.hidden_size': 8}]"))
    h = 8
    layers, recurrent = [(X + C) * h, h * h, h * 4 * h, h * C], h * 4 * h
    # The gradient of the recurrent weights has no part of the first position, before which nothing is.
    assert row.step_flops == 2 * B * (T * (3 * sum(layers) - layers[0] + 2 * recurrent + X * X) + (T - 1) * recurrent)
    assert row.turns == 2 * 2  # forward and backward, unrolled by 4


def test_accumulation_saves_memory_and_no_flops(resolve):
    grids = "[{'Run.model': @MLP(), 'TaskDistribution.task_batch_size': 8192, 'Training.accumulation': [1, 8]}]"
    whole, parts = rows(*resolve(grids))
    assert parts.step_flops == whole.step_flops
    assert parts.memory_bytes < whole.memory_bytes / 2


def test_a_batch_that_does_not_divide_into_its_parts_is_one_clear_line(resolve):
    points, runs = resolve("[{'Run.model': @MLP(), 'Training.accumulation': 3}]")
    with pytest.raises(UsageError, match="task_batch_size = 8 is not divisible by Training.accumulation = 3"):
        rows(points, runs)


def test_memory_holds_at_least_parameters_gradients_and_both_moments(resolve):
    points, runs = resolve("[{'Run.model': @LSTM(), 'LSTM.hidden_size': 256}]")
    (row,) = rows(points, runs)
    assert 4 * 4 * runs[0].sizes()["parameters"] < row.memory_bytes < 10 * 4 * runs[0].sizes()["parameters"]


def test_chip_hours_follow_from_flops_peak_and_utilization(resolve):
    points, runs = resolve("[{'Run.model': @MLP(), 'Training.steps': [1000, 3000]}]")
    first, second = rows(points, runs, chip="v4", utilization=0.5)
    assert (first.steps, second.steps) == (1000, 3000)
    assert first.chip_hours == pytest.approx(first.flops / (275e12 * 0.5) / 3600)
    assert second.chip_hours == pytest.approx(3 * first.chip_hours)
    for wrong in (0, 1.5, -1):
        with pytest.raises(UsageError, match="utilization"):
            rows(points, runs, utilization=wrong)


def test_a_run_that_is_too_large_for_a_device_is_marked(resolve):
    points, runs = resolve("[{'Run.model': @MLP(), 'MLP.hidden_size': [32, 60_000]}]")
    small, large = rows(points, runs)
    assert small.fits and not large.fits
    text = cost.as_table(points, runs)
    assert "1 points (!) may not fit one device" in text
    assert [line.split()[0:2] for line in text.splitlines() if "!  " in line] == [["MLP", "hidden_size=60000"]]


def test_the_table_has_totals_and_says_what_it_is(resolve):
    points, runs = resolve(
        "[{'Run.model': @MLP(), 'Run.seed': [0, 1]}, {'Run.model': @OnlineSGD(), 'Training.steps': 0}]"
    )
    text = cost.as_table(points, runs, chip="v6e", utilization=0.25)
    lines = text.splitlines()
    assert lines[0].startswith("An estimate for v6e (918 TFLOP/s of bfloat16 products and 31.24 GiB a device)")
    assert lines[3].split()[:2] == ["all", "2"]
    assert "flops at 25% of the chip's peak, which is an assumption" in text
    assert "1 points have Training.steps = 0" in text
    with pytest.raises(UsageError, match="no TPU chip 'v3'; there are v4, v5e"):
        cost.as_table(points, runs, chip="v3")


def test_json_has_an_object_a_program_with_its_run_ids(resolve):
    points, runs = resolve("[{'Run.model': [@MLP(), @LSTM()], 'Run.seed': [0, 1]}]")
    first, second = map(json.loads, cost.as_json(points, runs, chip="v5p", utilization=0.4).splitlines())
    assert first["points"] == [point.run_id for point in points[:2]] and second["name"] == "LSTM"
    assert first["flops"] == first["step_flops"] * first["steps"] * 2
    assert (first["chip"], first["utilization"], first["fits"]) == ("v5p", 0.4, True)
