"""Which points: patterns and shares."""

import random

import pytest

from gpicl_flax.config import parse
from gpicl_flax.errors import UsageError
from gpicl_flax.sweep import grid, listing, stacking, subset


@pytest.fixture(scope="module")
def sweep(small_bindings):
    grids = (
        "[{'Run.model': @LSTM(), 'LSTM.hidden_size': [4, 8, 16], 'Run.seed': [0, 1, 2]},"
        " {'Run.model': @MLP(), 'MLP.hidden_size': [4, 8], 'adam.learning_rate': [1e-3, 1e-2], 'Run.seed': [0, 1]}]"
    )
    points = grid.points(parse([], [*small_bindings, "Run.optimizer = @adam()", f"sweep.grids = {grids}"]))
    return points, listing.resolve_all(points)


def test_shares_are_disjoint_and_together_all(sweep):
    generator = random.Random(0)
    for _ in range(30):
        chosen = sorted(generator.sample(range(len(sweep[0])), generator.randint(1, len(sweep[0]))))
        points, runs = ([part[index] for index in chosen] for part in sweep)
        count = generator.randint(1, 20)
        shares = [subset.shard(points, runs, number, count) for number in range(1, count + 1)]
        assert sorted(index for share in shares for index in share) == list(range(len(points)))
        assert all(share == sorted(share) for share in shares)
        assert shares == [subset.shard(points, runs, number, count) for number in range(1, count + 1)]
        groups = stacking.groups(points, runs)
        if len(groups) >= count:  # none is torn apart, and none has much more than its share of them
            assert all(sum(bool({*group} & {*share}) for share in shares) == 1 for group in groups)
            assert all(shares)
        else:
            assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_what_can_train_together_stays_together_while_it_can(sweep):
    assert len(stacking.groups(*sweep)) == 5
    assert [subset.shard(*sweep, number, 5) for number in (1, 2)] == [[0, 1, 2], [3, 4, 5]]
    assert subset.shard(*sweep, 1, 6) == [0, 6, 12]
    assert subset.shard(*sweep, 1, 1) == list(range(len(sweep[0])))
    assert subset.shard(*sweep, 20, 20) == []


def test_a_pattern_may_match_a_part_of_the_run_id(sweep):
    points = sweep[0]
    assert subset.only(points, None) == points
    assert len(subset.only(points, "MLP")) == 8
    assert len(subset.only(points, "LSTM*seed=1")) == 3
    assert subset.only(points, points[3].run_id) == [points[3]]
    assert len(subset.only(points, "hidden_size=[48]_")) == 14
    assert subset.only(points, points[3].digest) == [points[3]]
    assert subset.only(points, *points[3].legacy_ids) == [points[3]]
    with pytest.raises(UsageError, match="no run id matches 'GRU'; the first is LSTM_hidden_size=4_seed=0_"):
        subset.only(points, "GRU")


def test_a_pattern_matches_what_a_cut_run_id_does_not_show(small_bindings):
    grids = f"[{{'note': {{{'x' * 100!r}: {{}}}}, 'Run.seed': [0, 1]}}]"
    points = grid.points(parse([], [*small_bindings, f"sweep.grids = {grids}"]))
    assert not any("seed" in point.run_id for point in points)
    assert subset.only(points, "seed=1") == [points[1]]
