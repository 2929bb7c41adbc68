"""Schedules of the step as gin knows them: those of optax, with arguments that are checked."""

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import gin
import jax
import jax.numpy as jnp
import optax

from gpicl_flax.bindings import kinds
from gpicl_flax.errors import UsageError

Schedule = Callable[[jax.Array], jax.Array]


def check(name: str, schedule: Any) -> None:
    """Raises UsageError, which names the setting, unless `schedule` maps a step to a number."""
    step = jax.ShapeDtypeStruct((), jnp.int32)
    try:
        fits = jnp.shape(jax.eval_shape(schedule, step)) == ()
    except Exception:  # it may be any function, class or model
        fits = False
    if not fits:
        raise UsageError(f"{name} must be a schedule, such as @optax.linear_schedule(), not {kinds.shown(schedule)}")


def _checked(make_schedule: Callable[..., optax.Schedule]) -> Callable[..., optax.Schedule]:
    """Returns the same function, with the same signature, which refuses arguments that make no schedule."""
    signature = inspect.signature(make_schedule)
    name = f"optax.{make_schedule.__name__}"

    @functools.wraps(make_schedule)
    def make(**arguments: Any) -> optax.Schedule:
        missing = [
            key for key, each in signature.parameters.items() if each.default is each.empty and key not in arguments
        ]
        if missing:
            raise UsageError(f"{name} needs a value for {', '.join(f'{name}.{key}' for key in missing)}")
        for key, value in arguments.items():
            kinds.check(f"{name}.{key}", value, _KINDS.get(key) or _kind(signature.parameters[key], name))
        warmup, decay = arguments.get("warmup_steps", 0), arguments.get("decay_steps")
        if decay is not None and decay <= warmup:
            raise UsageError(
                f"{name}.decay_steps = {decay} must be more than "
                + (f"{name}.warmup_steps = {warmup}, which it includes" if "warmup_steps" in arguments else "0")
            )
        return make_schedule(**arguments)

    make.__signature__ = signature  # pyright: ignore[reportAttributeAccessIssue]  gin reads it
    return make


_KINDS = {
    "exponent": kinds.NotNegative,
    "pct_start": Annotated[float, kinds.Range(0, 1)],
    "pct_final": Annotated[float, kinds.Range(0, 1)],
    "div_factor": Annotated[float, kinds.Range(1, 1e30)],
    "final_div_factor": Annotated[float, kinds.Range(1, 1e30)],
}


def _kind(parameter: inspect.Parameter, name: str) -> Any:
    """Returns the kind of another parameter of optax: steps are counted, and a cycle has at least one."""
    if parameter.annotation is int:
        return kinds.Count if "onecycle" in name else kinds.CountOrZero
    return kinds.Number


for _schedule in (
    optax.linear_schedule,
    optax.cosine_decay_schedule,
    optax.warmup_constant_schedule,
    optax.warmup_cosine_decay_schedule,
    optax.linear_onecycle_schedule,
):
    gin.external_configurable(_checked(_schedule), module="optax")
