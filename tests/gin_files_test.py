"""Every gin file of the project: it parses, expands, and each kind of model in it takes two steps."""

import collections
import pathlib

import pytest

from gpicl_flax.config import parse, parse_text
from gpicl_flax.records import json_lines
from gpicl_flax.records.run_folder import RunFolder
from gpicl_flax.runs.execute import RunSpec, execute
from gpicl_flax.runs.run import Run
from gpicl_flax.runtime.preemption import StopRequest
from gpicl_flax.sweep import grid, listing

ROOT = pathlib.Path(__file__).parents[1]
ALL_FILES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "gin").glob("*.gin"))
# The others are in experiments_test.
FILES = [path for path in ALL_FILES if not path.startswith(("gin/fig", "gin/table", "gin/parameter_count"))]
# Of one seed where seeds are an axis, see SHORTENED.
NUM_POINTS = {
    "gin/state_models.gin": 8 * 5 + 3 + 4 + 5 + 4,
    "gin/state_size.gin": 7 + 7 + 6 + 6 + 4 + 5 + 1 + 7 * 5 + 4 + 4 + 5,
    "gin/sgd.gin": 3 * 9 * 4,
    "gin/plateau.gin": 13 * 3 * 2 * 4 + 8 * 3,
    "gin/small_sweep.gin": 1 + 2 + 3 + 1,
    "gin/functions.gin": 4,
    "gin/recall.gin": 8 * 4 + 1,
    "gin/regression_tasks.gin": 20 + 1,
    "gin/bursty.gin": 4 * 2,
    "gin/transfer.gin": 2 * 2 * 4,
    "gin/frontiers.gin": 11 * 5 + 2 * 4,
}
# Axes of which all tests but one look at a single value, and the number of values that they have.
_SEEDS = ["SEEDS = [0]"]
SHORTENED = {
    "gin/state_models.gin": (_SEEDS, 8), "gin/state_size.gin": (_SEEDS, 8), "gin/plateau.gin": (_SEEDS, 5),
    "gin/bursty.gin": (_SEEDS, 3), "gin/functions.gin": (_SEEDS, 3), "gin/regression_tasks.gin": (_SEEDS, 3),
    "gin/recall.gin": (["RATES = [1e-3]", "NUM_PAIRS = [4]"], 4 * 6),
    "gin/transfer.gin": ([*_SEEDS, "RATES = [1e-3]"], 3 * 7), "gin/frontiers.gin": (_SEEDS, 3),
}  # fmt: skip


def configs(path, bindings=()):
    """The configurations that a file describes: one, or a sweep's points."""
    config = parse([path], [*bindings, *SHORTENED.get(path, ([], 1))[0]])
    if grid.GRIDS in config.bindings:
        return [point.config for point in grid.points(config)]
    return [config]


@pytest.mark.parametrize(
    "path", [pytest.param(path, marks=[pytest.mark.slow] * (path == "gin/plateau.gin")) for path in FILES]
)
def test_every_point_resolves(path):
    found = configs(path)
    assert len(found) == NUM_POINTS.get(path, 1)
    for config in found:
        config.resolve(Run)


@pytest.mark.parametrize("path", SHORTENED)
def test_the_other_axes_are_whole(path):
    assert len(grid.points(parse([path]))) == NUM_POINTS[path] * SHORTENED[path][1]


ELSEWHERE = {"gin/base.gin", "gin/quickstart.gin", "gin/small_sweep.gin"}  # their models take steps in other tests
# Many architectures or large programs; their models take steps in step_test.
LONG = {
    "gin/bursty.gin", "gin/frontiers.gin", "gin/functions.gin", "gin/griffin.gin", "gin/learner.gin", "gin/maml.gin",
    "gin/parameter_count.gin", "gin/plateau.gin", "gin/recall.gin", "gin/regression.gin", "gin/regression_tasks.gin",
    "gin/sgd.gin", "gin/state_models.gin", "gin/state_size.gin", "gin/transfer.gin",
}  # fmt: skip


@pytest.mark.parametrize(
    "path", [pytest.param(p, marks=[pytest.mark.slow] * (p in LONG)) for p in sorted(set(FILES) - ELSEWHERE)]
)
def test_every_model_takes_two_steps(path, tiny, tmp_path):
    first = {}
    for config in configs(path):
        first.setdefault(type(config.resolve(Run)[0].model).__name__, config)
    for name, config in first.items():
        config, run = tiny(config)
        folder = RunFolder(tmp_path / name)
        execute([RunSpec.from_config(config, folder)], StopRequest())
        assert [row["step"] for row in json_lines.read(folder.metrics)] == [2][: run.training.steps], name
        assert folder.ended == "DONE", name


@pytest.mark.parametrize("path", ALL_FILES)
def test_the_cpu_scale_fits_every_file(path):
    config = parse([path, "gin/scale/cpu.gin"])
    points = grid.points(config) if grid.GRIDS in config.bindings else []
    runs = listing.resolve_all(points) or [grid.without_sweep(config).resolve(Run)[0]]
    assert {run.tasks.base_dataset for run in runs if run.tasks.has_base_datasets} <= {"digits", "random"}
    assert sum(run.training.steps > 0 for run in runs) <= (64 if path == "gin/parameter_count.gin" else 40)
    # Half an hour of a small Transformer on two cores.
    examples = [run.training.steps * run.tasks.task_batch_size * run.tasks.sequence_length for run in runs]
    assert sum(examples) < 6e7


def test_the_laptop_scale_runs_the_papers_setting_for_long():
    points = grid.points(parse(["gin/plateau.gin", "gin/scale/laptop.gin"]))
    runs = listing.resolve_all(points)
    steps = {(run.labels["intervention"], run.labels["dataset"]): run.training.steps for run in runs}
    assert steps["paper", "digits"] >= 30 * 90 and steps["paper", "mnist_14x14"] >= 30 * 190
    assert {run.seed for run in runs} == {0, 1, 2, 3, 4}


@pytest.mark.parametrize(
    "path", ["gin/base.gin", "gin/state_models.gin", "gin/state_size.gin", "gin/sgd.gin", "gin/maml.gin"]
)
def test_what_the_paper_does_not_have_is_off_in_its_presets(path):
    for config in configs(path):
        run, _ = config.resolve(Run)
        assert getattr(run.model, "token_layout", "shifted") == "shifted" and run.training.curriculum is None
        assert getattr(run.model, "matching_gain", None) is None and getattr(run.model, "matching_heads", 0) in (0, 1)


@pytest.mark.parametrize(("name", "features"), [("14x14x1", 196), ("28x28x1", 784), ("32x32x3", 3072)])
def test_input_presets_set_the_shape_that_they_are_named_after(name, features):
    run, _ = parse(["gin/base.gin", f"gin/inputs/{name}.gin"]).resolve(Run)
    assert "x".join(map(str, run.tasks.input_shape)) == name and run.tasks.num_features == features


@pytest.mark.slow
def test_state_size_gin_lists_the_sizes_of_every_model():
    points = grid.points(parse(["gin/state_size.gin"], ["SEEDS = [0]"]))
    runs = [run for run in listing.resolve_all(points) if type(run.model).__name__ not in MATRICES]
    sizes = [(type(run.model).__name__, *run.sizes().values()) for run in runs]
    assert ("LSTM", 646_666, 256, 512) in sizes
    assert ("Transformer", 3_240_714, 12_800, 204_800) in sizes
    assert ("OuterProductLSTM", 24_651, 1024, 1056) in sizes
    assert ("VSML", 2512, 31_360, 64_368) in sizes
    assert ("VSMLWithoutSymmetries", 53_114, 4096, 8320) in sizes
    assert ("DeltaNet", 3_494_890, 32_768, 32_768) in sizes
    assert ("MLP", 1_261_578, 0, 0) in sizes
    assert ("RGLRU", 5_870_346, 4096, 16_384) in sizes
    assert len(sizes) == 84 - 7 * 5


MATRICES = {"LinearAttention", "RetNet", "Mamba2", "GLA", "MLSTM", "KDA", "RWKV7"}


@pytest.mark.slow
def test_matrices_of_a_block_have_64_to_16384_numbers():
    points = grid.points(parse(["gin/state_size.gin"], ["SEEDS = [0]"]))
    found = collections.defaultdict(list)
    for run in listing.resolve_all(points):
        if type(run.model).__name__ in MATRICES:
            found[type(run.model).__name__].append(run.sizes()["state_size_paper"] / run.model.num_layers)
    assert found == dict.fromkeys(MATRICES, [2**6, 2**8, 2**10, 2**12, 2**14])


@pytest.mark.slow
@pytest.mark.parametrize("scale", ["cpu", *(pytest.param(scale, marks=pytest.mark.slow) for scale in (None, "laptop"))])
def test_state_models_vary_the_state_at_equal_parameters(scale):
    bindings = [f"{name} = [0]" for name in ("SEEDS", "LAPTOP_SEEDS")]
    points = grid.points(parse(["gin/state_models.gin", *([f"gin/scale/{scale}.gin"] if scale else [])], bindings))
    states, parameters = collections.defaultdict(list), []
    for run in listing.resolve_all(points):
        sizes = run.sizes()
        states[type(run.model).__name__].append(sizes["state_size_paper"])
        parameters.append(sizes["parameters"])
    assert max(parameters) < 1.05 * min(parameters)
    length = {None: 100, "cpu": 40, "laptop": 100}[scale]
    if scale:  # two blocks
        heads = 2 * 64**2
        matrices = [2 * heads]
        others = {
            "RGLRU": [2 * 256], "SlidingWindowTransformer": [2 * 64 * 32], "Hybrid": [heads + 64 * 32],
            "Transformer": [2 * 128 * length],
        }  # fmt: skip
    else:  # four blocks
        matrices = [2**8, 2**10, 2**12, 2**14, 2**16]
        others = {
            "RGLRU": [2**8, 2**10, 3 * 2**10], "SlidingWindowTransformer": [2**8, 2**10, 2**12, 4 * 32 * length],
            "Hybrid": [2**8, 2**10, 2**12, 12 * 32**2 + 32 * length, 12 * 64**2 + 32 * length],
            "Transformer": [4 * length * size for size in (1, 3, 10, 41)],
        }  # fmt: skip
    assert states == dict.fromkeys(MATRICES | {"DeltaNet"}, matrices) | others


def test_small_state_models_start_matched_where_they_can():
    runs = listing.resolve_all(grid.points(parse(["gin/state_models.gin", "gin/scale/cpu.gin"])))
    models = {type(run.model).__name__: getattr(run.model, "pattern", [run.model])[0] for run in runs}
    matched = {name for name, model in models.items() if getattr(model, "matching_heads", 0)}
    assert matched == {"LinearAttention", "GLA", "MLSTM", "DeltaNet", "KDA", "Hybrid", "Transformer"}
    assert models["Transformer"].matching_gain is not None
    assert all(run.model.token_layout == "aligned" for run in runs)
    assert {(run.tasks.sequence_length, run.training.steps) for run in runs} == {(40, 800)}


@pytest.mark.slow
def test_a_warm_up_keeps_the_memory_of_a_matched_outer_product_lstm(tmp_path):
    (point,) = (point for point in grid.points(parse(["gin/small_sweep.gin"])) if "_size=96_" in point.run_id)
    schedule = [
        key for key in point.config.bindings if "warmup_constant_schedule" in key or key == "adam.learning_rate"
    ]
    short = ["Training.steps = 20", "Training.checkpoint_period = 20", "MetaTest.num_sequences = 8"]
    losses = []
    for less, more in (([], []), (schedule, ["adam.learning_rate = 2e-3"])):
        less = [*less, *(binding.split(" = ")[0] for binding in short)]
        config, folder = (
            parse_text(point.config.without(*less).text, [*more, *short]),
            RunFolder(tmp_path / str(len(less))),
        )
        execute([RunSpec.from_config(config, folder)], StopRequest())
        losses.append(json_lines.read(folder.metrics)[-1]["loss"])
    kept, lost = losses
    assert kept < 2.27 and lost > 2.3  # chance is 2.303
