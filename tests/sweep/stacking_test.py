import jax
import pytest

from gpicl_flax.config import parse
from gpicl_flax.sweep import grid, listing, stacking


@pytest.fixture
def plan(small_bindings):
    """(grids, members of a stack at most) -> the overrides of the points of each stack."""

    def make(grids, size=100, bindings=()):
        points = grid.points(parse([], [*small_bindings, *bindings, f"sweep.grids = {grids}"]))
        stacks = stacking.plan(points, listing.resolve_all(points), lambda run: size)
        assert sorted(index for stack in stacks for index in stack) == list(range(len(points)))
        return [[list(points[index].overrides.values()) for index in stack] for stack in stacks]

    return make


def test_points_that_differ_in_numbers_share_a_stack(plan):
    grids = """[{'Run.seed': [0, 1], 'adam.learning_rate': [1e-3, 1e-2], 'adam.eps': [1e-8, 1e-5],
                 'TaskDistribution.num_tasks': [16, 64], 'TaskDistribution.permute_labels_prob': [0.1, 1.0],
                 'Run.optimizer': @adam()}]"""
    assert [len(stack) for stack in plan(grids)] == [32]
    weight_decay = "[{'Run.optimizer': @adamw(), 'adamw.weight_decay': [0.0, 1e-4]}]"
    assert [len(stack) for stack in plan(weight_decay)] == [2]


@pytest.mark.parametrize(
    "axis",
    [
        "'LSTM.hidden_size': [4, 8], 'Run.model': @LSTM()",
        "'TaskDistribution.task_batch_size': [8, 16]",
        "'TaskDistribution.num_tasks': [None, 64]",
        "'Training.steps': [100, 200], 'Run.training': @Training()",
        "'Run.optimizer': [@adam(), @sgd()]",
        "'Run.optimizer': @sgd(), 'sgd.momentum': [0.0, 0.9]",
        "'adam.clip_norm': [None, 1.0], 'Run.optimizer': @adam()",
        "'adam.learning_rate': [1e-3, @optax.linear_schedule()], 'Run.optimizer': @adam(), "
        "'optax.linear_schedule.init_value': 1e-3, 'optax.linear_schedule.end_value': 0.0, "
        "'optax.linear_schedule.transition_steps': 10",
        "'TaskDistribution.normalize': [True, False]",
        "'Run.seed': [0, 1], 'Training.steps': 0, 'Run.training': @Training()",
        # The learner inside reads the same number.
        "'Run.model': @MAML(), 'MAML.inner_optimizer': @inner/adam(), 'Run.optimizer': @adam(), 'adam.b1': [0.5, 0.9]",
    ],
)
def test_points_of_other_programs_do_not(plan, axis):
    bindings = [] if "linear_schedule" not in axis else ()
    try:
        stacks = plan(f"[{{{axis}}}]", bindings=bindings)
    except Exception as error:  # a schedule that the first point does not use
        assert "not used by this run" in str(error)
        return
    assert [len(stack) for stack in stacks] == [1, 1]


def test_numbers_of_an_optimiser_in_a_scope_are_those_of_its_scope(plan):
    grids = """[{'Run.model': @MAML(), 'MAML.inner_optimizer': @inner/adam(), 'inner/adam.eps_root': 1e-8,
                 'Run.optimizer': @outer/adam(), 'outer/adam.learning_rate': [1e-3, 1e-2]}]"""
    assert [len(stack) for stack in plan(grids)] == [2]


def test_stacks_are_even_and_in_the_order_of_the_grid(plan):
    grids = "[{'Run.model': @LSTM(), 'LSTM.hidden_size': [4, 8], 'Run.seed': [0, 1, 2, 3, 4, 5, 6, 7, 8]}]"
    assert [len(stack) for stack in plan(grids, size=8)] == [4, 5, 4, 5]
    assert [stack[0][0] for stack in plan(grids, size=8)] == [4, 4, 8, 8]
    assert [len(stack) for stack in plan(grids, size=1)] == [1] * 18


def test_an_accelerator_takes_what_fits_its_memory(plan, small_bindings, monkeypatch):
    points = grid.points(parse([], [*small_bindings, "sweep.grids = [{'Run.model': @LSTM()}]"]))
    (run,) = listing.resolve_all(points)
    assert stacking.largest(run) == 1  # on CPU
    needed = stacking._bytes_of_a_member(run)
    parameters = 4 * 3 * run.sizes()["parameters"]
    assert parameters < needed < 10**9

    class Accelerator:
        platform = "tpu"

    monkeypatch.setattr(jax, "local_devices", lambda: [Accelerator()])
    for free, members in ((needed * 5, 4), (needed, 1), (10**15, 32)):
        monkeypatch.setattr(stacking, "free_device_memory", lambda free=free: free)
        assert stacking.largest(run) == members * jax.device_count()
