"""Members of a stack are the runs that they would be alone."""

import functools

import jax
import numpy as np
import pytest

from gpicl_flax.config import parse
from gpicl_flax.errors import Diverged, Preempted
from gpicl_flax.records import json_lines
from gpicl_flax.records.run_folder import RunFolder
from gpicl_flax.runs.execute import RunSpec, execute
from gpicl_flax.runtime.preemption import StopRequest
from gpicl_flax.training.checkpoint import Checkpoints
from gpicl_flax.training.partitioning import MeshShape

STEPS = ["Training.steps = 12", "Training.steps_per_dispatch = 2", "Training.checkpoint_period = 4"]
MODELS = {
    "lstm": ["Run.model = @LSTM()", "LSTM.hidden_size = 8"],
    "transformer": [
        "Run.model = @Transformer()",
        "Transformer.num_layers = 1",
        "Transformer.model_size = 16",
        "Transformer.num_heads = 2",
        "Transformer.key_size = 8",
    ],
}
# The bindings of each member.
MEMBERS = (
    ["Run.seed = 3", "adam.learning_rate = 1e-2"],
    ["Run.seed = 4", "TaskDistribution.num_tasks = 7", "adam.eps_root = 1e-6"],
    ["TaskDistribution.permute_labels_prob = 1.0", "adam.b1 = 0.5"],
    ["adam.eps = 1e-3"],
)
DIAGNOSED = [
    "Training.diagnostics = @Diagnostics()",
    "Diagnostics.period = 6",
    "Diagnostics.num_sequences = 8",
    "MetaTest.at_checkpoints = True",
]
FLOATS = {"rtol": 2e-4, "atol": 2e-5}  # products of a stack are summed in another order


@pytest.fixture(scope="module")
def make_configs(small_bindings):
    def make(model, members=MEMBERS, more=()):
        return [
            parse([], [*small_bindings, *STEPS, *DIAGNOSED, *MODELS[model], "Run.optimizer = @adam()", *more, *member])
            for member in members
        ]

    return make


def run_stack(configs, path, on_row=lambda row: None):
    folders = [RunFolder(path / str(index)) for index in range(len(configs))]
    with StopRequest() as stop:
        diverged = execute([RunSpec.from_config(c, f, on_row) for c, f in zip(configs, folders, strict=True)], stop)
    return folders, diverged


def assert_same_run(found, expected):
    """Everything that a run leaves, but for the rounding of a stack."""
    rows, expected_rows = json_lines.read(found.metrics), json_lines.read(expected.metrics)
    assert [row["step"] for row in rows] == [row["step"] for row in expected_rows]
    for name in ("loss", "loss_ema", "grad_norm", "param_norm", "loss_last"):
        np.testing.assert_allclose([r[name] for r in rows], [r[name] for r in expected_rows], **FLOATS, err_msg=name)
    diagnostics, expected_diagnostics = (
        [r["diagnostics"] for r in log if "diagnostics" in r] for log in (rows, expected_rows)
    )
    assert len(diagnostics) == 2
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=2e-3, atol=1e-4), diagnostics, expected_diagnostics)
    files, expected_files = (sorted(file.name for file in folder.evaluations.iterdir()) for folder in (found, expected))
    assert files == expected_files and len(files) == 3
    curves, expected_curves = (folder.latest_evaluation()["curves"] for folder in (found, expected))
    for curve, expected_curve in zip(curves, expected_curves, strict=True):
        np.testing.assert_allclose(curve["loss"], expected_curve["loss"], rtol=1e-3)
    assert found.ended == expected.ended == "DONE"
    with Checkpoints(found.checkpoints) as ours, Checkpoints(expected.checkpoints) as theirs:
        assert ours.latest_step == theirs.latest_step == 12 and ours.meta()["data"] == theirs.meta()["data"]


@pytest.fixture(scope="module")
def alone(make_configs, start, tmp_path_factory):
    """Model -> the runs of all members, each by itself; made once."""

    @functools.cache
    def make(model):
        folders = [RunFolder(tmp_path_factory.mktemp(model) / "run") for _ in MEMBERS]
        for config, folder in zip(make_configs(model), folders, strict=True):
            start(config, folder)
        return folders

    return make


@pytest.fixture(scope="module")
def stacked(make_configs, tmp_path_factory):
    """The run folders of a stack of all members, each on one device, and why they diverged."""
    return run_stack(make_configs("lstm", more=["MeshShape.data = 1"]), tmp_path_factory.mktemp("stacked"))


@pytest.mark.parametrize(
    ("model", "data"),
    [("lstm", 1), *(pytest.param(model, -1, marks=pytest.mark.slow) for model in ("lstm", "transformer"))],
)
def test_a_member_is_the_run_that_it_would_be_alone(model, data, make_configs, alone, stacked, tmp_path):
    """With data = 1 each member has a device, with -1 it has two."""
    more = [f"MeshShape.data = {data}"]
    folders, diverged = stacked if data == 1 else run_stack(make_configs(model, more=more), tmp_path)
    assert diverged == [None] * 4
    assert folders[0].read_run_info()["mesh"] == {"member": 4, "data": 1 if data == 1 else 2, "fsdp": 1, "model": 1}
    for found, expected in zip(folders, alone(model), strict=True):
        assert_same_run(found, expected)
        assert (found.config.read_text() == expected.config.read_text()) == (data == 1)


def test_a_member_that_diverges_does_not_disturb_the_others(make_configs, alone, tmp_path):
    configs = make_configs("lstm")
    wild = configs[1].override({"adam.learning_rate": 1e30})
    folders, diverged = run_stack([configs[0], wild, *configs[2:]], tmp_path)
    assert [type(error) for error in diverged] == [type(None), Diverged, type(None), type(None)]
    assert folders[1].ended == "DIVERGED" and folders[1].latest_evaluation() is None
    for index in (0, 2, 3):
        assert_same_run(folders[index], alone("lstm")[index])


@pytest.mark.slow
def test_a_preempted_stack_goes_on_as_if_nothing_had_been(make_configs, contents, sigterm_at, stacked, tmp_path):
    configs, (undisturbed, _) = make_configs("lstm"), stacked
    with pytest.raises(Preempted, match="stopped at step 8 of 12, saved"):
        run_stack(configs, tmp_path / "stack", sigterm_at(6))
    for index in range(4):
        with Checkpoints(RunFolder(tmp_path / "stack" / str(index)).checkpoints) as checkpoints:
            assert checkpoints.latest_step == 8
    folders, _ = run_stack(configs, tmp_path / "stack")
    for found, expected in zip(folders, undisturbed, strict=True):
        assert contents(found) == contents(expected)


@pytest.mark.slow
def test_members_can_start_from_different_steps_and_leave_the_stack_for_another(
    make_configs, alone, start, sigterm_at, tmp_path
):
    """Member 0 has made 8 steps, member 1 all but its meta-test, member 2 none; member 3 goes on alone from step 4.

    Other runs fill the stacks up to four members, for which the program is compiled already.
    """
    configs = make_configs("lstm")
    folders = [RunFolder(tmp_path / str(index)) for index in range(4)]

    others = [
        RunSpec.from_config(config, RunFolder(tmp_path / "elsewhere" / str(i))) for i, config in enumerate(configs)
    ]
    for specs in (
        [RunSpec.from_config(configs[0], folders[0], sigterm_at(6))],
        [RunSpec.from_config(configs[1], folders[1], sigterm_at(12))],
        [*others[:3], RunSpec.from_config(configs[3], folders[3], sigterm_at(2))],
    ):
        with StopRequest() as stop, pytest.raises(Preempted):
            execute(specs, stop)
    assert not any(folder.ended for folder in folders)
    rows = []
    with StopRequest() as stop:
        execute(
            [
                *(RunSpec.from_config(*each, rows.append) for each in zip(configs[:3], folders[:3], strict=True)),
                others[3],
            ],
            stop,
        )
    assert [row["step"] for row in rows] == [10, 2, 12, 4, 6, 8, 10, 12]
    start(configs[3], folders[3])
    for found, expected in zip(folders, alone("lstm"), strict=True):
        assert_same_run(found, expected)


@pytest.mark.parametrize(
    ("shape", "members", "mesh"),
    [
        ({}, 1, (1, 8, 1, 1)),
        ({}, 8, (8, 1, 1, 1)),
        ({}, 12, (4, 2, 1, 1)),
        ({}, 3, (1, 8, 1, 1)),
        ({"model": 2}, 32, (4, 1, 1, 2)),
        ({"fsdp": 2, "model": 2}, 2, (2, 1, 2, 2)),
        ({"data": 4}, 6, (2, 4, 1, 1)),
        ({"data": 1}, 1, (1, 1, 1, 1)),
    ],
)
def test_members_lie_on_as_many_devices_as_they_divide_over(shape, members, mesh):
    assert tuple(MeshShape(**shape).build(members).shape.values()) == mesh
    assert jax.device_count() == 8
