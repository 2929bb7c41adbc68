"""Optimisers as gin knows them: optax, with the paper's values as defaults."""

import math

import gin
import optax

from gpicl_flax.errors import UsageError

# Learning rates may be schedules of the step: `adam.learning_rate = @optax.warmup_constant_schedule()`.
for _schedule in (
    optax.linear_schedule,
    optax.cosine_decay_schedule,
    optax.warmup_constant_schedule,
    optax.warmup_cosine_decay_schedule,
):
    gin.external_configurable(_schedule, module="optax")


@gin.configurable
def adam(
    learning_rate: optax.ScalarOrSchedule = 1e-3,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 1e-8,
    clip_norm: float | None = None,
) -> optax.GradientTransformation:
    """Adam as the authors ran it; their eps_root makes the floor of the denominator about 1e-4.

    Args:
      learning_rate: a number or an optax schedule.
      b1, b2: decays of the two moments.
      eps: added to the root of the second moment.
      eps_root: added to the second moment under the root; 0 is the usual Adam.
      clip_norm: if set, gradients are first scaled down to at most this global norm.

    Raises:
      UsageError: a value is not a number from 0 on.
    """
    numbers = {"b1": b1, "b2": b2, "eps": eps, "eps_root": eps_root} | (
        {} if clip_norm is None else {"clip_norm": clip_norm}
    )
    for name, value in (numbers if callable(learning_rate) else {"learning_rate": learning_rate} | numbers).items():
        if not isinstance(value, float | int) or not 0 <= value < math.inf:
            raise UsageError(f"adam.{name} must be a number from 0 on, not {value!r}")
    optimizer = optax.adam(learning_rate, b1=b1, b2=b2, eps=eps, eps_root=eps_root)
    return optax.chain(optax.clip_by_global_norm(clip_norm), optimizer) if clip_norm is not None else optimizer
