import pytest

from gpicl_flax.config import parse
from gpicl_flax.sweep import grid, listing, programs, stages


@pytest.fixture
def of(small_bindings):
    """Grids -> (name, number of points) of each program."""

    def make(grids):
        points = grid.points(parse([], [*small_bindings, f"sweep.grids = {grids}"]))
        found = programs.programs(points, listing.resolve_all(points))
        return [(program.name, len(program.points)) for program in found]

    return make


def test_points_that_differ_in_numbers_have_one_program(of):
    grids = """[{'Run.seed': [0, 1], 'adam.learning_rate': [1e-3, 1e-2], 'TaskDistribution.num_tasks': [16, 64],
                 'Run.optimizer': @adam(), 'Training.steps': [10, 20], 'MetaTest.num_sequences': [5, 6]}]"""
    assert of(grids) == [("Transformer", 32)]


def test_other_widths_optimisers_batches_and_models_are_other_programs(of):
    grids = """[{'Run.model': @LSTM(), 'LSTM.hidden_size': [4, 8], 'Run.seed': [0, 1]},
                {'Run.model': @MLP(), 'TaskDistribution.task_batch_size': [8, 16]},
                {'Run.optimizer': [@adam(), @sgd()]}]"""
    assert of(grids) == [
        ("LSTM hidden_size=4", 2),
        ("LSTM hidden_size=8", 2),
        ("MLP task_batch_size=8", 1),
        ("MLP task_batch_size=16", 1),
        ("optimizer=adam", 1),
        ("optimizer=sgd", 1),
    ]


def test_labels_that_share_a_program_are_all_named(of):
    grids = """[{'change': {'none': {}, 'eps': {'adam.eps': 1e-5}, 'wide': {'Transformer.model_size': 64}},
                 'Run.optimizer': @adam(), 'Run.seed': [0, 1]}]"""
    assert of(grids) == [("change=eps|none", 4), ("change=wide", 2)]


def test_runs_of_no_steps_have_no_program(of):
    assert of("[{'Run.model': @OnlineSGD(), 'Training.steps': 0}, {'Run.model': @MLP()}]") == [("MLP", 1)]


def test_base_datasets_of_one_stored_shape_and_size_are_one_program_and_nothing_is_read(of):
    grids = "[{'TaskDistribution.base_dataset': ['mnist', 'fashion_mnist', 'not_there', 'digits', 'svhn_cropped']}]"
    # At 4x4x1 all are stored as 4x4x1; SVHN, which has three channels, could not be trained on at this shape.
    assert [number for _, number in of(grids)] == [3, 1, 1]


def test_a_single_run_is_a_point(small_bindings):
    single = parse([], [*small_bindings, "Run.model = @MLP()"])
    (point,) = stages.points_or_run(single)
    assert point.config == single and point.run_id.startswith("run_")
    sweep = parse([], [*small_bindings, "sweep.grids = [{'Run.model': [@MLP(), @LSTM()], 'Run.seed': [0, 1, 2]}]"])
    assert stages.points_or_run(sweep) == grid.points(sweep)
