import types

import gin
import jax
import optax
import pytest

from gpicl_flax.config import parse
from gpicl_flax.runs.run import Run
from gpicl_flax.sweep import grid, listing, programs, stacking


@pytest.fixture
def plan(small_bindings):
    """(grids, members of a stack at most) -> the overrides of the points of each stack."""

    def make(grids, size=100):
        points = grid.points(parse([], [*small_bindings, f"sweep.grids = {grids}"]))
        stacks = stacking.plan(points, listing.resolve_all(points), stacking.at_most(size))
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
    labelled = (
        "[{'change': {'none': {}, 'eps': {'adam.eps': 1e-5}, 'p': {'TaskDistribution.permute_labels_prob': 1.0}}}]"
    )
    assert [len(stack) for stack in plan(labelled)] == [3]


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
        "'TaskDistribution.normalize': [True, False]",
        "'Run.seed': [0, 1], 'Training.steps': 0, 'Run.training': @Training()",
        # The learner inside reads the same number.
        "'Run.model': @MAML(), 'MAML.inner_optimizer': @inner/adam(), 'Run.optimizer': @adam(), 'adam.b1': [0.5, 0.9]",
    ],
)
def test_points_of_other_programs_do_not(plan, axis):
    assert [len(stack) for stack in plan(f"[{{{axis}}}]")] == [1, 1]


@pytest.mark.parametrize(
    "grids",
    [
        # A norm and none, a schedule and a number.
        "{'Run.seed': 0, 'Run.optimizer': @adam()}, {'Run.seed': 1, 'Run.optimizer': @adam(), 'adam.clip_norm': 1.0}",
        """{'Run.optimizer': @adam(), 'adam.learning_rate': @optax.linear_schedule(),
            'linear_schedule.init_value': 1e-3, 'linear_schedule.end_value': 0.0,
            'linear_schedule.transition_steps': 10},
           {'Run.optimizer': @adam(), 'adam.learning_rate': 1e-3}""",
        # The learner inside has the same optimiser, in the same scope and by the scope of the model.
        """{'Run.model': @MAML(), 'MAML.inner_optimizer': @o/adam(), 'Run.optimizer': @o/adam(),
            'o/adam.learning_rate': [1e-3, 1e-1]}""",
        """{'Run.model': @o/MAML(), 'o/MAML.inner_optimizer': @adam(), 'Run.optimizer': @o/adam(),
            'o/adam.learning_rate': [1e-3, 1e-1]}""",
    ],
)
def test_points_that_one_program_cannot_serve_do_not_either(plan, grids):
    assert [len(stack) for stack in plan(f"[{grids}]")] == [1, 1]


def test_points_with_one_schedule_share_a_stack(plan):
    grids = """[{'Run.optimizer': @adam(), 'adam.learning_rate': @optax.linear_schedule(), 'adam.eps': [1e-8, 1e-6],
                 'linear_schedule.init_value': [1e-3, 1e-2], 'linear_schedule.end_value': 0.0,
                 'linear_schedule.transition_steps': 10}]"""
    assert [len(stack) for stack in plan(grids)] == [2, 2]


@gin.configurable(module="stacking_test")
def foreign_optimizer(learning_rate=0.1):
    return optax.sgd(learning_rate)


def test_an_optimiser_from_elsewhere_keeps_its_numbers_to_itself(plan):
    grids = """[{'Run.optimizer': @stacking_test.foreign_optimizer(), 'Run.seed': [0, 1],
                 'foreign_optimizer.learning_rate': [0.0, 1.0]}]"""
    assert [len(stack) for stack in plan(grids)] == [2, 2]


def test_numbers_of_an_optimiser_in_a_scope_are_those_of_its_scope(plan):
    grids = "[{'Run.optimizer': @o/adam(), 'o/adam.learning_rate': [1e-3, 1e-2], 'o/adam.b1': [0.5, 0.9]}]"
    assert [len(stack) for stack in plan(grids)] == [4]


def test_stacks_are_in_the_order_of_the_grid(plan):
    grids = "[{'Run.model': @LSTM(), 'LSTM.hidden_size': [4, 8], 'Run.seed': [0, 1, 2, 3, 4, 5, 6, 7, 8]}]"
    assert [len(stack) for stack in plan(grids, size=8)] == [8, 1, 8, 1]
    assert [stack[0][0] for stack in plan(grids, size=8)] == [4, 4, 8, 8]
    assert [len(stack) for stack in plan(grids, size=1)] == [1] * 18


@pytest.mark.parametrize(
    ("fit", "bindings", "count", "sizes"),
    [
        pytest.param(4, ["MeshShape.data = -1"], 100, [32, 32, 32, 4], marks=pytest.mark.slow),
        (4, ["MeshShape.data = -1"], 23, [16, 4, 2, 1]),
        (1, ["MeshShape.data = 1"], 13, [8, 4, 1]),
        (0.5, ["MeshShape.data = 1"], 3, [2, 1]),
        (4, ["MeshShape.data = 4"], 11, [8, 2, 1]),
        pytest.param(10**6, ["MeshShape.data = 8"], 40, [32, 8], marks=pytest.mark.slow),
    ],
)
def test_an_accelerator_takes_what_fits_its_memory_and_divides_over_it(
    fit, bindings, count, sizes, small_bindings, monkeypatch
):
    """8 devices, whose memory `fit` members fit."""
    run, _ = parse([], [*small_bindings, "Run.model = @LSTM()", *bindings]).resolve(Run)
    assert stacking.largest(run, count) == [1] * count  # on CPU
    needed = stacking._bytes_of_a_member(run)
    assert 4 * 3 * run.sizes()["parameters"] < needed < 10**9

    monkeypatch.setattr(jax, "local_devices", lambda: [types.SimpleNamespace(platform="tpu")])
    monkeypatch.setattr(stacking, "free_device_memory", lambda: needed * fit / 0.8 * 1.01)
    found = stacking.largest(run, count)
    assert found == sizes and sum(found) == count
    for size in found:
        mesh = run.mesh.build(size)
        assert size // mesh.shape["member"] <= max(1, min(fit, 32))
        assert mesh.size == 8 or run.mesh.data != -1


def test_the_host_where_the_fewest_members_fit_decides(small_bindings, monkeypatch):
    run, _ = parse([], [*small_bindings, "Run.model = @LSTM()"]).resolve(Run)
    monkeypatch.setattr(stacking, "_bytes_of_a_member", lambda run: 10)
    monkeypatch.setattr(stacking, "free_device_memory", lambda: 100)
    monkeypatch.setattr(jax, "local_devices", lambda: [types.SimpleNamespace(platform="tpu")])
    assert stacking.largest(run, 100)[0] == 8 * 8
    monkeypatch.setattr(stacking.distributed, "max_over_processes", lambda own, name: max(own, -3))
    assert stacking.largest(run, 100)[0] == 8 * 3


def test_members_differ_in_the_numbers_of_their_task_family():
    common = ["Run.tasks = @NoisyLinearRegression()", "Run.model = @LSTM()", "LSTM.hidden_size = 4"]
    grids = """[{'Run.seed': [0, 1], 'NoisyLinearRegression.num_tasks': [4, 16]},
                {'Run.seed': [2, 3], 'NoisyLinearRegression.num_tasks': 4, 'NoisyLinearRegression.noise': 0.25}]"""
    points = grid.points(parse([], [*common, f"sweep.grids = {grids}"]))
    runs = listing.resolve_all(points)
    assert stacking.plan(points, runs, stacking.at_most(100)) == [[0, 1, 2, 3], [4, 5]]
    (first, second) = programs.programs(points, runs)
    assert len(first.points) == 4 and len(second.points) == 2
