"""Run ids, and the digests that they end in."""

import re

import pytest

from gpicl_flax.config import Config, Reference, parse
from gpicl_flax.runs import identity
from gpicl_flax.sweep import grid, run_ids, stages

NASTY = (
    "",
    ".",
    "..",
    "...",
    "../../etc/passwd",
    "/",
    "//",
    "\\",
    "-rf",
    "--help",
    " ",
    "\t\n\r\0",
    'a/b\\c:d*e?f"g<h>i|j',
    "größe",
    "état",
    "大きさ",
    "🦙🦙",
    "\u202egnp.exe",
    "%s$HOME`ls`;&!#~",
    "_",
    "__",
    "=",
    "x" * 300,
    "é" * 300,
    "大" * 300,
    None,
    (),
    [],
    {},
    -1,
    1e-30,
    (2, (3, "x")),
)
SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+=-]*")


@pytest.fixture
def points_of(tmp_path):
    def points(grids, *bindings):
        path = tmp_path / "sweep.gin"
        path.write_text(f"include 'gin/base.gin'\nsweep.grids = {grids}\n")
        return grid.points(parse([str(path)], bindings))

    return points


def readable(points):
    return [point.run_id.rpartition("_")[0] for point in points]


def test_lists_labels_and_the_model_are_named_and_fixed_values_are_not(points_of):
    points = points_of(
        """[{'Run.model': @LSTM(), 'LSTM.hidden_size': [16, 32], 'Training.steps': 100, 'Run.seed': [0],
             ('adam.b1', 'adam.b2'): (0.5, 0.6), ('Telemetry.period', 'Diagnostics.period'): [(10, 20)],
             'tokens': {'aligned': {'LSTM.token_layout': 'aligned'}}}]"""
    )
    assert readable(points) == [
        f"tokens=aligned_LSTM_hidden_size={size}_seed=0_period=10_period=20" for size in (16, 32)
    ]
    assert points[0].names == ("tokens=aligned", "LSTM", "hidden_size=16", "seed=0", "period=10", "period=20")


def test_where_a_sweep_has_several_models_all_its_points_name_theirs(points_of):
    assert readable(points_of("[{'Run.seed': [0]}]")) == ["seed=0"]
    assert readable(points_of("[{'Run.seed': [0]}, {'Run.model': @lstm.LSTM()}]")) == ["Transformer_seed=0", "LSTM"]
    labels = "{'method': {'LSTM': {'Run.model': @LSTM()}, 'GPICL': {}, 'large': {'Run.model': @big/Transformer()}}}"
    assert readable(points_of(f"[{labels}]")) == [
        "method=GPICL_Transformer",
        "method=LSTM",
        "method=large_big-Transformer",
    ]
    fixed = "sweep.fixed = {'Run.model': @MLP()}"
    assert readable(points_of(f"[{{'Run.model': [@LSTM(), @Transformer()], 'Run.seed': [0]}}]\n{fixed}")) == ["seed=0"]


def test_a_point_without_anything_to_name_has_a_name(points_of):
    (point,) = points_of("[{'Run.seed': 3}]")
    assert point.run_id == f"point_{point.digest}"


def test_digests_stay_the_same_when_the_grid_grows(points_of):
    small = points_of("[{'Run.seed': [0, 1], 'Training.steps': [10]}]")
    large = points_of("[{'Run.seed': [2, 1, 0], 'Training.steps': [10, 20]}, {'Run.seed': [5]}]")
    assert {p.run_id for p in small} < {p.run_id for p in large}
    # ... also where the readable part does not,
    models = points_of("[{'Run.seed': [0, 1], 'Training.steps': [10]}, {'Run.model': @LSTM()}]")
    assert {p.digest for p in small} < {p.digest for p in models}
    assert not {p.run_id for p in small} & {p.run_id for p in models}
    # ... and the bindings may move between the grid and the file.
    moved = points_of("[{'Run.seed': [0, 1]}]", "Training.steps = 10")
    assert [p.digest for p in moved] == [p.digest for p in small]
    # They are others when anything that the id does not name changes.
    other = points_of("[{'Run.seed': [0, 1], 'Training.steps': [10]}]", "TaskDistribution.num_tasks = 5")
    assert not {p.digest for p in small} & {p.digest for p in other}


def test_a_digest_is_of_the_configuration_of_its_point(points_of):
    for point in points_of("[{'Run.seed': [0, 1], 'tokens': {'a': {}, 'b': {'adam.b1': 0.5}}}]"):
        assert point.digest == identity.digest(point.config) == point.run_id.rpartition("_")[2]
        assert re.fullmatch("[0-9a-f]{12}", point.digest)


def test_points_that_differ_in_a_label_alone_are_two_as_the_report_reads_labels_from_their_folders(points_of):
    points = points_of("[{'varies': {'state': {}, 'parameters': {}}}]")
    assert len({point.digest for point in points}) == 2


def test_values_are_readable():
    for value, text in (
        (("a/b", "c d"), "a-b-c-d"),
        ((2, 64), "2-64"),
        (("a",), "a"),
        (-1, "-1"),
        (1e-16, "1e-16"),
        (1e30, "1e+30"),
        (None, "None"),
        (Reference("@adam()"), "adam"),
        ("größe", "gro-e"),
        ("café/crème", "cafe-creme"),
        ("low learning rate", "low-learning-rate"),
    ):
        assert run_ids.part("name", value) == f"name={text}"


@pytest.mark.parametrize("name", NASTY)
@pytest.mark.parametrize("make", [run_ids.part, lambda name, value: run_ids.model_part(name)])
def test_parts_are_safe_whatever_they_name(make, name):
    for value in NASTY:
        text = make(str(name), value)
        assert SAFE.fullmatch(text), (name, value, text)


@pytest.mark.parametrize("label", [x for x in NASTY if isinstance(x, str) and x.isprintable()])
def test_any_label_makes_a_folder_name_of_at_most_120_bytes(points_of, label, tmp_path):
    axis = label.replace(".", "") or "axis"
    points = points_of(f"[{{{axis!r}: {{{label!r}: {{}}, {label + '2'!r}: {{}}}}, 'Run.seed': [0, 1]}}]")
    names = [point.run_id for point in points]
    assert len(set(names)) == 4
    for name in names:
        assert SAFE.fullmatch(name) and len(name.encode()) <= 120
        (tmp_path / "runs" / name).mkdir(parents=True)
    assert {path.name for path in (tmp_path / "runs").iterdir()} == set(names)
    assert {point.overrides["Run.labels"][axis] for point in points} == {label, label + "2"}


def test_a_long_run_id_loses_whole_parts_from_its_end():
    parts, digest = [f"axis_{n}={'x' * 13}" for n in range(9)], "0123456789ab"
    assert run_ids.join(parts, digest) == "_".join([*parts[:5], digest])
    fits = "y" * (120 - len("name=_") - len(digest))
    assert run_ids.join([f"name={fits}"], digest) == f"name={fits}_{digest}"
    assert run_ids.join([f"name={fits}y"], digest) == f"point_{digest}"
    assert run_ids.join(["a=1", f"name={fits}", "b=2"], digest) == f"a=1_{digest}"  # none is left out between others


def test_a_single_run_has_a_digest():
    (point,) = stages.points_or_run(parse(["gin/base.gin"]))
    assert point.run_id == f"run_{point.digest}" and point.digest == identity.digest(point.config)
    assert point.digest != identity.digest(Config({}))
