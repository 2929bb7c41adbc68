"""Optimisers as gin knows them: those of optax, with the paper's values as defaults.

All of them take a learning rate that is a number or an optax schedule of the step (`adam.learning_rate =
@optax.warmup_constant_schedule()`), and `schedule`, a factor of all updates that changes with the step. With a schedule
that peaks at 1, the learning rate stays a number, in which the members of a stack can differ. They also take
`clip_norm`, a global norm to which gradients are first scaled down. A value out of its range raises UsageError. A scope
defines a second optimiser of the same kind: `@inner/adam()` uses the bindings of `inner/adam` and, where it has none,
those of `adam`.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, cast

import gin
import jax
import jax.numpy as jnp
import optax

from gpicl_flax.bindings.kinds import Decay, NotNegative, Range, check
from gpicl_flax.training import schedules

Schedule = Callable[[jax.Array], jax.Array]
LearningRate = Annotated[float, Range(0)] | Schedule


class Optimizer(optax.GradientTransformation):
    """An optax optimiser that remembers how it was made, so that its hyperparameters can become part of its state."""

    factory: Callable[..., optax.GradientTransformation]
    arguments: dict[str, Any]
    unscaled: "Optimizer"  # that of the base size, if this is one of another size, see `training.parametrization`

    @classmethod
    def make(cls, factory: Callable[..., optax.GradientTransformation], **arguments: Any) -> "Optimizer":
        """Returns the optimiser that the factory makes of the arguments: numbers, schedules, or None."""
        optimizer = cls(*factory(**arguments))
        optimizer.factory, optimizer.arguments = factory, arguments
        return optimizer


def inject(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """Returns the same optimiser with its numbers as arrays in its state (`hyperparams`), if it is an `Optimizer`.

    Optimisers that differ only in these numbers then share one program, and still make their own updates.
    """
    if not isinstance(optimizer, Optimizer):
        return optimizer
    # The schedule stays a function of the step; optax would take its value for one more number.
    return optax.inject_hyperparams(optimizer.factory, static_args=("schedule",))(**optimizer.arguments)


def hyperparameters(optimizer: optax.GradientTransformation) -> dict[str, jax.Array]:
    """Returns the numbers that `inject` puts into the state, schedules at their start. Other optimisers have none."""
    if not isinstance(optimizer, Optimizer):
        return {}
    state: Any = inject(optimizer).init(jnp.float32(0))
    return state.hyperparams


def with_hyperparameters(opt_state: Any, values: dict[str, jax.Array]) -> optax.OptState:
    """Returns the state with other numbers, in the form that `hyperparameters` returns."""
    return opt_state._replace(hyperparams=values) if values else opt_state


def structure(optimizer: optax.GradientTransformation) -> str:
    """Returns a text that optimisers must share to be members of one stack, in addition to their schedules."""
    if not isinstance(optimizer, Optimizer):
        return type(optimizer).__name__
    kinds = {
        name: "schedule" if callable(value) else "number" if isinstance(value, int | float) else repr(value)
        for name, value in optimizer.arguments.items()
    }
    return f"{optimizer.factory.__name__}{kinds}"


def _checked[**P](make: Callable[P, optax.GradientTransformation]) -> Callable[P, optax.GradientTransformation]:
    """Returns the same function, which refuses arguments that are not of the kinds of its annotations."""
    signature = inspect.signature(make)

    @functools.wraps(make)
    def checked(*args: P.args, **kwargs: P.kwargs) -> optax.GradientTransformation:
        for key, value in signature.bind(*args, **kwargs).arguments.items():
            name = f"{make.__name__}.{key}"
            check(name, value, signature.parameters[key].annotation)
            if key in ("learning_rate", "schedule") and callable(value):
                schedules.check(name, value)
        return make(*args, **kwargs)

    checked.__signature__ = signature  # pyright: ignore[reportAttributeAccessIssue]  gin reads it
    return checked


@gin.configurable
@_checked
def adam(
    learning_rate: LearningRate = 1e-3,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NotNegative = 1e-8,
    eps_root: NotNegative = 1e-8,
    clip_norm: NotNegative | None = None,
    schedule: Schedule | None = None,
) -> optax.GradientTransformation:
    """Makes Adam as the authors ran it. Their eps_root makes the floor of the denominator about 1e-4.

    Args:
      learning_rate: a number or a schedule.
      b1, b2: decays of the two moments.
      eps: added to the root of the second moment.
      eps_root: added to the second moment under the root; 0 gives the usual Adam.
      clip_norm: the largest global norm of gradients; None: any.
      schedule: a factor of the updates at each step; None: 1.
    """
    numbers = {"b1": b1, "b2": b2, "eps": eps, "eps_root": eps_root}
    return Optimizer.make(make_adam, learning_rate=learning_rate, **numbers, clip_norm=clip_norm, **_given(schedule))


@gin.configurable
@_checked
def adamw(
    learning_rate: LearningRate = 1e-3,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NotNegative = 1e-8,
    eps_root: NotNegative = 1e-8,
    weight_decay: NotNegative = 1e-4,
    clip_norm: NotNegative | None = None,
    schedule: Schedule | None = None,
) -> optax.GradientTransformation:
    """Makes Adam with decoupled weight decay (Fig 20, and the SGD baseline).

    Args:
      learning_rate, b1, b2, eps, eps_root, clip_norm, schedule: those of `adam`.
      weight_decay: the fraction of every parameter, including biases, that a step removes, times the learning rate.
    """
    numbers = {"eps": eps, "eps_root": eps_root, "weight_decay": weight_decay, "clip_norm": clip_norm}
    return Optimizer.make(make_adamw, learning_rate=learning_rate, b1=b1, b2=b2, **numbers, **_given(schedule))


@gin.configurable
@_checked
def sgd(
    learning_rate: LearningRate = 1e-3,
    momentum: Decay = 0.0,
    clip_norm: NotNegative | None = None,
    schedule: Schedule | None = None,
) -> optax.GradientTransformation:
    """Makes gradient descent.

    Args:
      learning_rate, clip_norm, schedule: those of `adam`.
      momentum: decay of the sum of past gradients that a step follows; 0: the gradient alone.
    """
    numbers = {"momentum": momentum or None, "clip_norm": clip_norm}
    return Optimizer.make(_sgd, learning_rate=learning_rate, **numbers, **_given(schedule))


@gin.configurable
@_checked
def sign_ema(
    learning_rate: LearningRate = 1e-3,
    decay: Decay = 0.9,
    clip_norm: NotNegative | None = None,
    schedule: Schedule | None = None,
) -> optax.GradientTransformation:
    """Makes updates of -learning rate x the sign of the gradient's exponential moving average (Fig 19).

    Args:
      learning_rate, clip_norm, schedule: those of `adam`.
      decay: the decay of the average.
    """
    numbers = {"decay": decay, "clip_norm": clip_norm}
    return Optimizer.make(make_sign_ema, learning_rate=learning_rate, **numbers, **_given(schedule))


def _given(schedule: Schedule | None) -> dict[str, Schedule]:
    """Returns the argument `schedule` if there is one, so that optimisers without it stay what they were."""
    return {} if schedule is None else {"schedule": schedule}


def make_adam(learning_rate, b1, b2, eps, eps_root, clip_norm, schedule=None):
    return whole(optax.adam(learning_rate, b1=b1, b2=b2, eps=eps, eps_root=eps_root), clip_norm, schedule)


def make_adamw(learning_rate, b1, b2, eps, eps_root, weight_decay, clip_norm, schedule=None):
    optimizer = optax.adamw(learning_rate, b1=b1, b2=b2, eps=eps, eps_root=eps_root, weight_decay=weight_decay)
    return whole(optimizer, clip_norm, schedule)


def _sgd(learning_rate, momentum, clip_norm, schedule=None):
    return whole(optax.sgd(learning_rate, momentum=momentum), clip_norm, schedule)


def make_sign_ema(learning_rate, decay, clip_norm, schedule=None):
    average = optax.ema(decay, debias=False)  # debiasing would be a positive factor, which does not change a sign
    signs = optax.chain(average, optax.scale_by_sign(), optax.scale_by_learning_rate(learning_rate))
    return whole(signs, clip_norm, schedule)


def whole(
    optimizer: optax.GradientTransformation, clip_norm: float | None, schedule: Schedule | None
) -> optax.GradientTransformation:
    """Returns the optimiser between the clipping of gradients and the factor of its updates, where there are any."""
    clipped = optimizer if clip_norm is None else optax.chain(optax.clip_by_global_norm(clip_norm), optimizer)
    return (
        clipped if schedule is None else optax.chain(clipped, optax.scale_by_schedule(cast(optax.Schedule, schedule)))
    )
