"""Every setting of every configurable refuses values of another kind, in a message that names it."""

import collections.abc
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import gin
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpicl_flax.bindings.kinds import Count, Range, check
from gpicl_flax.config import parse
from gpicl_flax.errors import UsageError
from gpicl_flax.models import LSTM, SequenceModel
from gpicl_flax.runs.run import Run
from gpicl_flax.tasks.families import GaussianClasses
from gpicl_flax.training.optimizers import adam

quickly = settings(deadline=None, derandomize=True, max_examples=60)

# What configurables need that have no defaults.
NEEDED = {
    "linear_schedule": {"init_value": 0.0, "end_value": 1.0, "transition_steps": 10},
    "cosine_decay_schedule": {"init_value": 1.0, "decay_steps": 10},
    "warmup_constant_schedule": {"init_value": 0.0, "peak_value": 1.0, "warmup_steps": 10},
    "warmup_cosine_decay_schedule": {"init_value": 0.0, "peak_value": 1.0, "warmup_steps": 2, "decay_steps": 10},
    "linear_onecycle_schedule": {"transition_steps": 10, "peak_value": 1.0},
    "Mixture": {"families": [GaussianClasses()]},
    "EarlyStop": {"plateau_steps": 10},
}


@functools.cache
def all_settings() -> list[tuple[str, Callable, str]]:
    """Every setting of the package and of optax: its name in gin, its configurable and its parameter."""
    found = []
    for selector, configurable in gin.config._REGISTRY.items():
        package, name = selector.partition(".")[0], selector.rpartition(".")[2]
        if package in ("gpicl_flax", "optax") and name != "sweep":
            parameters = [
                key for key in inspect.signature(configurable.wrapped).parameters if key not in ("self", "name")
            ]
            prefix = "optax." if package == "optax" else ""
            found += [(f"{prefix}{name}.{key}", configurable.wrapper, key) for key in parameters if key != "parent"]
    return found


def accepts(make: Callable, key: str, value: Any, setting: str) -> bool:
    """Whether a configurable takes a value; otherwise it refuses it, names the setting, and does nothing else."""
    needed = NEEDED.get(setting.removeprefix("optax.").partition(".")[0], {})
    try:
        make(**{**needed, key: value})
    except UsageError as error:
        message = str(error).split("\n")[0]
        assert key in message and len(message) <= 300 and " at 0x" not in message, message
        return False
    return True


def test_there_are_many_settings():
    names = [setting for setting, _, _ in all_settings()]
    assert len(names) == len(set(names)) > 100
    assert {"Run.seed", "adam.clip_norm", "optax.linear_schedule.end_value", "MAML.hidden_sizes"} <= set(names)


@pytest.mark.parametrize("setting", [setting for setting, _, _ in all_settings()])
def test_no_setting_takes_what_no_setting_can_be(setting):
    (make, key) = next((make, key) for name, make, key in all_settings() if name == setting)
    for wrong in (object(), LSTM, 2j, {1, 2}, b"x", float("nan"), {None: None}, [[[]]]):
        assert not accepts(make, key, wrong, setting), wrong
    if key != "model":
        assert not accepts(make, key, LSTM(), setting)
    if key not in ("optimizer", "inner_optimizer"):
        assert not accepts(make, key, adam(), setting)


numbers = (
    st.booleans() | st.integers() | st.integers(-(2**70), 2**70) | st.floats() | st.sampled_from([10**11, 2**31, -5])
)


@quickly
@given(st.data(), numbers | st.none() | st.just(()) | st.text("a1", max_size=3))
def test_every_setting_takes_a_value_or_names_itself(data, value):
    setting, make, key = data.draw(st.sampled_from(all_settings()), label="setting")
    accepts(make, key, value, setting)


BASE = ("gin/quickstart.gin",)


@pytest.mark.parametrize(
    ("binding", "words"),
    [
        ("adam.clip_norm = 100000000000", "too large for an integer; write it as 100000000000.0"),
        ("adam.clip_norm = True", "a number from 0 on or None, not True"),
        ("adam.clip_norm = 1e39", "at most"),
        ("adam.learning_rate = @LSTM()", "a schedule"),
        ("adam.learning_rate = @optax.linear_schedule", "a schedule"),
        ("adam.learning_rate = @adam()", "refers to itself"),
        ("Transformer.model_size = @LSTM()", "of type int, not @LSTM()"),
        ("Transformer.model_size = @LSTM", "of type int, not @LSTM"),
        ("Transformer.dtype = @LSTM()", "of type str, not @LSTM()"),
        ("Transformer.num_layers = 1000000", "at most 1,024, not 1000000"),
        ("TaskDistribution.sequence_length = 1000000000", "at most 1,048,576"),
        ("TaskDistribution.input_shape = (10000, 10000, 3)", "more than 1,048,576 inputs"),
        ("TaskDistribution.input_shape = (True, 8, 1)", "[0] must be of type int, not True"),
        ("TaskDistribution.permute_labels_prob = 1.5", "at most 1, not 1.5"),
        ("optax.warmup_cosine_decay_schedule.warmup_steps = -5", "must not be negative, but is -5"),
        ("optax.warmup_cosine_decay_schedule.warmup_steps = 1.5", "of type int"),
        ("optax.warmup_cosine_decay_schedule.exponent = []", "a number from 0 on, not []"),
        ("MetaTest.base_datasets = ['digits', 'digits']", "names 'digits' twice"),
        ("MetaTest.base_datasets = ['digits', 3]", "[1] must be of type str, not 3"),
        ("Run.labels = {1: 'a'}", "of type str, not 1"),
        ("Run.labels = {'a': 1}", "of type str, not 1"),
    ],
)
def test_a_binding_of_another_kind_is_named(binding, words):
    with pytest.raises(UsageError) as caught:
        parse(BASE, [binding]).resolve(Run)
    message = str(caught.value)
    assert words in message and binding.partition(" ")[0] in message and "\n" not in message, message


def test_a_schedule_that_is_too_short_names_both_of_its_settings():
    with pytest.raises(UsageError, match=r"decay_steps = 20 must be more than .*warmup_steps = 100"):
        parse(BASE, ["STEPS = 20"]).resolve(Run)
    bindings = ["adam.learning_rate = @optax.linear_schedule()", "optax.linear_schedule.init_value = 1.0"]
    with pytest.raises(UsageError, match=r"needs a value for .*end_value, .*transition_steps$"):
        parse([], bindings).resolve(Run)


@pytest.mark.parametrize(
    ("binding", "words"),
    [
        ("LSTM.hidden_size = 1000000", "the parameters of the LSTM and the optimiser's state take 108,.* GB"),
        ("MetaTest.num_sequences = 2000000000", "MetaTest.num_sequences x .* take 8,000,000.0 GB"),
        ("TaskDistribution.task_batch_size = 1000000", "TaskDistribution.task_batch_size x .* take 784,"),
        ("Training.steps_per_dispatch = 2000000000", "Training.steps_per_dispatch x .* take 8,000,000.0 GB"),
    ],
)
def test_what_no_memory_can_hold_is_refused_before_it_is_tried(binding, words):
    bindings = [
        "Run.model = @LSTM()",
        "TaskDistribution.sequence_length = 1000000",
        "TaskDistribution.task_batch_size = 1",
        "Training.steps = 2000000000",
        "Training.checkpoint_period = 2000000000",
        "MeshShape.data = 1",
        binding,
    ]
    run, _ = parse([], bindings).resolve(Run)
    with pytest.raises(UsageError, match=words):
        run.check_devices()


def test_states_that_no_memory_can_hold_are_refused():
    """The cells of a grid have few parameters, which they share."""
    bindings = ["Run.model = @VSMLWithoutSymmetries()", "TaskDistribution.input_shape = (1,)", "MeshShape.data = 1"]
    sizes = ["VSMLWithoutSymmetries.grid_size = 1000000", "VSMLWithoutSymmetries.hidden_size = 1"]
    run, _ = parse([], bindings + sizes).resolve(Run)
    with pytest.raises(UsageError, match=r"the states of the VSMLWithoutSymmetries .* take 512,.* GB"):
        run.check_devices()


def test_a_learner_of_a_user_is_checked_by_its_annotations():
    class Mine(SequenceModel):
        size: int = 64
        rates: Sequence[float] = ()
        anything: Any = None

    class Later(SequenceModel):
        size: int = 64
        unknown: "NoSuchType" = None  # noqa: F821  # pyright: ignore[reportUndefinedVariable]

    assert Mine(rates=[1, 0.5], anything=object()).size == Later(unknown=object()).size == 64
    for wrong in ({"size": 1.5}, {"rates": (True,)}, {"num_classes": None}):
        with pytest.raises(UsageError, match=rf"Mine\.{next(iter(wrong))}"):
            Mine(**wrong)
    with pytest.raises(UsageError, match=r"Later\.size"):
        Later(size=None)


@pytest.mark.parametrize(
    ("kind", "fits", "does_not"),
    [
        (int, [3, -3], [True, 1.5, None, "3"]),
        (float, [3, 0.5], [True, None, "3", 1j, float("inf"), 2**31]),
        (bool, [True], [1, None]),
        (int | None, [3, None], [True, 1.5]),
        (Count, [1, 2**31 - 1], [0, 2**31, 1.0]),
        (Annotated[float, Range(0, 1, is_open=True)] | None, [0, 0.5, None], [1, 1.0, -0.1]),
        (tuple[int, ...], [(1, 2), [1], ()], [1, (True,), ("a",), {}]),
        (Sequence[str], [["a"], ()], ["a", [1]]),
        (Mapping[str, float], [{"a": 1}, {}], [{1: 1}, {"a": True}, []]),
        (collections.abc.Callable, [print], [3]),
        (optax.GradientTransformation, [optax.sgd(0.1)], [(), optax.sgd]),
        (optax.ScalarOrSchedule, [1, 0.5, print], [True, None, ()]),
        (Any, [object(), None], []),
    ],
)
def test_kinds(kind, fits, does_not):
    for value in fits:
        check("x", value, kind)
    for value in does_not:
        with pytest.raises(UsageError, match="x"):
            check("x", value, kind)
