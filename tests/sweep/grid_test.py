import pytest

from gpicl_flax.config import parse
from gpicl_flax.errors import UsageError
from gpicl_flax.runs.run import Run
from gpicl_flax.sweep import grid, listing


@pytest.fixture
def points_of(tmp_path):
    def points(grids, *bindings):
        path = tmp_path / "sweep.gin"
        path.write_text(f"include 'gin/base.gin'\nsweep.grids = {grids}\n")
        return grid.points(parse([str(path)], bindings))

    return points


def values(points, *keys):
    return [tuple(point.overrides.get(key) for key in keys) for point in points]


def test_a_grid_is_the_product_of_its_axes(points_of):
    points = points_of("[{'Run.seed': [0, 1], 'Training.steps': [10, 20, 30]}]")
    assert sorted(values(points, "Run.seed", "Training.steps")) == [(s, n) for s in (0, 1) for n in (10, 20, 30)]
    assert len({point.run_id for point in points}) == 6


def test_a_sweep_is_the_union_of_its_grids_and_can_choose_models(points_of):
    points = points_of(
        "[{'Run.model': @LSTM(), 'LSTM.hidden_size': [8, 16]}, "
        "{'Run.model': @Transformer(), 'Transformer.key_size': 4}]"
    )
    runs = listing.resolve_all(points)
    assert [(type(run.model).__name__, run.sizes()["state_size_paper"]) for run in runs] == [
        ("LSTM", 8),
        ("LSTM", 16),
        ("Transformer", 1600),
    ]


def test_a_tuple_of_bindings_varies_together(points_of):
    points = points_of(
        "[{('Training.steps', 'TaskDistribution.task_batch_size'): [(100, 8), (50, 16)], 'Run.seed': [0, 1]}]"
    )
    keys = ("Training.steps", "TaskDistribution.task_batch_size", "Run.seed")
    assert sorted(values(points, *keys)) == [(50, 16, 0), (50, 16, 1), (100, 8, 0), (100, 8, 1)]


def test_macros_in_a_grid_can_be_bound_from_outside(points_of):
    assert values(points_of("[{'Run.seed': %SEEDS}]\nSEEDS = [0, 1]", "SEEDS = [7]"), "Run.seed") == [(7,)]


def test_fixed_bindings_win_over_the_grids_and_merge_what_they_make_equal(points_of):
    fixed = "sweep.fixed = {'Run.seed': 7, 'Training.steps': 10}"
    points = points_of("[{'Run.seed': [0, 1], 'TaskDistribution.task_batch_size': [8, 16]}]\n" + fixed)
    assert values(points, "Run.seed", "TaskDistribution.task_batch_size") == [(7, 8), (7, 16)]
    assert all(point.config.resolve(Run)[0].training.steps == 10 for point in points)
    # The same point without the detour has the same id.
    plain = points_of("[{'Run.seed': 7, 'TaskDistribution.task_batch_size': [8, 16]}]", "Training.steps = 10")
    assert [point.run_id for point in plain] == [point.run_id for point in points]


def test_bindings_may_name_the_modules_of_their_configurables(points_of):
    """The grid's bindings replace those of the file, and fixed ones those of the grid, however all are spelled."""
    grids = "[{'gpicl_flax.runs.run.Run.seed': [1, 2], 'training.optimizers.adam.b1': [0.5, 0.6]}]"
    points = points_of(f"{grids}\nsweep.fixed = {{'adam.b1': 0.7}}", "adam.b1 = 0.8")
    assert values(points, "Run.seed", "adam.b1") == [(1, 0.7), (2, 0.7)]
    assert [point.config.bindings["Run.seed"] for point in points] == [1, 2]
    assert [point.config.resolve(Run)[0].optimizer.arguments["b1"] for point in points] == [0.7, 0.7]


def test_points_that_fixed_bindings_make_equal_become_one_across_grids(points_of):
    grids = "[{'Run.seed': [0, 1]}, {'Run.seed': 2, 'TaskDistribution.task_batch_size': 128}]"
    (point,) = points_of(f"{grids}\nsweep.fixed = {{'Run.seed': 7}}")
    assert len(point.legacy_ids) == 2  # one a grid


def test_without_grids_fixed_bindings_are_plain_ones():
    config = grid.without_sweep(parse(["gin/base.gin"], ["sweep.fixed = {'Run.seed': 7}"]))
    assert config == parse(["gin/base.gin"], ["Run.seed = 7"])


INTERVENTIONS = """{'tokens': {'shifted': {}, 'aligned': {'LSTM.token_layout': 'aligned'},
    'both': {('LSTM.token_layout'): 'aligned', 'adam.b1': 0.5}}, 'Run.model': @LSTM(), 'Run.seed': [0, 1]}"""


def test_an_axis_of_labels_chooses_between_sets_of_bindings(points_of):
    points = points_of(f"[{INTERVENTIONS}]")
    points = [point for point in points if point.overrides["Run.seed"] == 0]
    assert [point.overrides["Run.labels"] for point in points] == [
        {"tokens": label} for label in ("aligned", "both", "shifted")
    ]
    runs = listing.resolve_all(points)
    assert [run.labels["tokens"] for run in runs] == ["aligned", "both", "shifted"]
    assert [run.model.token_layout for run in runs] == ["aligned", "aligned", "shifted"]
    assert [run.optimizer.arguments["b1"] for run in runs] == [0.9, 0.5, 0.9]


def test_an_experiment_can_have_grids_of_its_own_for_a_scale(points_of):
    own = "sweep.scales = {'cpu': [{'Run.seed': [0, 1], 'Training.steps': 30}]}\nsweep.fixed = {'Run.seed': 9}"
    for scale, expected in (("'cpu'", [(0, 30), (1, 30)]), ("'other'", [(9, None)])):
        points = points_of(f"[{{'Run.seed': [0, 1, 2, 3]}}]\n{own}\nsweep.scale = {scale}")
        assert values(points, "Run.seed", "Training.steps") == expected
        assert grid.GRIDS not in points[0].config.bindings and grid.SCALES not in points[0].config.bindings


def test_a_run_of_a_scale_that_shrinks_nothing_is_refused():
    with pytest.raises(UsageError, match="no grids of that scale"):
        grid.without_sweep(parse(["gin/base.gin", "gin/scale/laptop.gin"]))


OTHER_TASKS = ["include 'gin/parts/run.gin'", "Run.tasks = @Recall()", "Training.steps = 30"]


def test_what_a_scale_says_of_images_does_not_count_for_other_tasks(tmp_path):
    path = tmp_path / "recall.gin"
    path.write_text("\n".join(OTHER_TASKS))
    run = grid.without_sweep(parse([str(path), "gin/scale/cpu.gin"])).resolve(Run)[0]
    assert (run.tasks.gin_name, run.training.steps, run.meta_test.num_sequences) == ("Recall", 200, 128)
    own = grid.without_sweep(parse([str(path), "gin/scale/cpu.gin"], ["TaskDistribution.base_dataset = 'random'"]))
    with pytest.raises(UsageError, match="not used by this run.*: TaskDistribution.base_dataset$"):
        own.resolve(Run)


def test_each_point_of_a_sweep_over_families_has_what_a_scale_says_of_its_tasks(tmp_path):
    path = tmp_path / "families.gin"
    grids = "sweep.grids = [{'Run.tasks': [@Recall(), @TaskDistribution()], 'Run.seed': [0, 1]}]"
    path.write_text("\n".join([OTHER_TASKS[0], grids]))
    runs = listing.resolve_all(grid.points(parse([str(path), "gin/scale/cpu.gin"])))
    assert [(run.tasks.gin_name, run.seed, run.tasks.data_name, run.tasks.task_batch_size) for run in runs] == [
        ("Recall", 0, "recall", 128),
        ("TaskDistribution", 0, "digits", 16),
    ]
    assert list(runs[1].meta_test.base_datasets) == ["digits"]


def test_the_configuration_of_a_point_is_a_run_of_its_own(points_of):
    (point,) = points_of("[{'Run.seed': [4]}]")
    assert grid.GRIDS not in point.config.bindings
    assert point.config.resolve(Run)[0].seed == 4


@pytest.mark.parametrize(
    ("grids", "words"),
    [
        ("[]", "no sweep"),
        ("{'Run.seed': [1]}", "no sweep"),
        ("[{}]", "no sweep"),
        ("[{'Run.seed': []}]", "no values"),
        ("[{'Run.seed': [1, 1]}]", "two points are the same"),
        ("[{'Run.seed': [1]}, {'Run.seed': [1, 2]}]", "two points are the same: seed=1_"),
        ("[{'Run.seed': [1]}, {'Run.seed': 1}]", "two points are the same: seed=1_.* and point_"),
        ("[{'Run.seed': [1]}, {'runs.run.Run.seed': [1]}]", "two points are the same"),
        ("[{'Run.model': [@LSTM(), @lstm.LSTM()]}]", "two points are the same"),
        ("[{'TaskDistribution.input_shape': [[8, 8, 1], (8, 8, 1)]}]", "two points are the same"),
        (
            "[{'Loader.num_workers': [0, 2]}]",
            "the same: .*=0_.* and .*=2_.*; Loader.num_workers cannot change results",
        ),
        ("[{'Loader.num_workers': [0, 2]}]\nsweep.fixed = {'Run.seed': 2}", "two points are the same"),
        ("[{('Run.seed', 'Training.steps'): [(1, 10), 2]}]", "tuples of 2"),
        ("[{('Run.seed', 'Training.steps'): [(1, 10)], 'Run.seed': [1]}]", "Run.seed twice"),
        ("[{3: [1]}]", "3 is no binding"),
        ("[{(1, 2): [(1, 2)]}]", "is no binding"),
        ("[{'seed': [1]}]", "'seed' is no binding"),
        ("[{'Run.seed': {'a': {}}}]", "'Run.seed' has a dict"),
        ("[{'seed': {'a': {'Run': 1}}}]", "'seed' must be"),
        ("[{'seed': {}}]", "'seed' must be"),
        ("[{'seed': {'a': {'Run.seed': 1}}, 'Run.seed': [1]}]", "Run.seed twice"),
        ("[{'run.Run.seed': [1], 'Run.seed': [1]}]", "Run.seed twice"),
        ("[{'Run.seed': [1]}]\nsweep.scales = ['cpu']", "sweep.scales must be"),
        ("[{'Run.seed': [1]}]\nsweep.scale = ['cpu']", "sweep.scale must be the name"),
        ("[{'seed': {'one': {'Run.seed': 1}}}]\nsweep.fixed = {'Run.seed': 2}", "would undo what 'one' .*Run.seed"),
        ("[{'seed': {'one': {'run.Run.seed': 1}}}]\nsweep.fixed = {'Run.seed': 2}", "would undo what 'one'"),
        ("[{'Run.seed': [1]}]\nsweep.scales = {'cpu': [{'Run.seed': 1}]}\nsweep.scale = 'lap'", "'lap': .*only of cpu"),
        ("[{'Run.seed': [1]}]\nsweep.scale = 'laptop'", "no grids of that scale"),
        ("[{'Run.seed': [1]}]\nsweep.fixed = ['Run.seed']", "sweep.fixed must be"),
    ],
)
def test_wrong_grids_are_refused(points_of, grids, words):
    with pytest.raises(UsageError, match=words):
        points_of(grids)


@pytest.mark.parametrize(
    ("grids", "words"),
    [
        ("[{'Run.sed': [1]}]", "Run.*sed"),
        ("[{'LSTM.hidden_size': [1]}]", "not used.*LSTM.hidden_size"),
        ("[{'TaskDistribution.sequence_length': [50, 500]}]", "sequence_length=500.*max_length"),
    ],
)
def test_wrong_points_are_refused_before_any_runs(points_of, grids, words):
    with pytest.raises(UsageError, match=words):
        listing.resolve_all(points_of(grids))
