"""MAML (Finn et al., 2017) as in Table 2: online gradient descent from a meta-learned initial classifier."""

import functools
from collections.abc import Sequence
from typing import Annotated

import gin
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from gpicl_flax.bindings.kinds import Range
from gpicl_flax.errors import UsageError
from gpicl_flax.references.online import OnlineLearner


@gin.configurable
class MAML(OnlineLearner):
    """Online gradient descent whose initial parameters are meta-trained through all of its steps, to second order.

    By default it uses the authors' classifier with one hidden layer. Where a gradient is zero, as behind a dead ReLU,
    the derivative of Adam's update is NaN unless eps_root > 0; hence the default of 1e-8. Memory grows with B x T x
    (parameters + moments); Training.accumulation divides B.

    Raises:
      UsageError: the derivative of the inner optimiser's update is not finite at a gradient of zero.
    """

    hidden_sizes: Sequence[Annotated[int, Range(high=2**20)]] = (128,)
    inner_optimizer: optax.GradientTransformation = optax.adam(1e-3, eps_root=1e-8)

    def __post_init__(self):
        super().__post_init__()
        if not _is_differentiable_at_zero(self.inner_optimizer):
            raise UsageError(
                "MAML.inner_optimizer cannot be differentiated where a gradient is zero: give Adam an eps_root > 0, "
                "and no clipping"
            )

    @nn.compact
    def starts(self, batch, num_features):
        """Returns the same parameters for all sequences."""
        params = self.param("classifier", self.initial_classifier, num_features)
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (batch, *x.shape)), params)


@functools.cache  # because flax creates a new module for each use
def _is_differentiable_at_zero(optimizer: optax.GradientTransformation) -> bool:
    """Returns whether two updates with zero gradients have a finite derivative with respect to these gradients."""

    def two_updates(gradient):
        params = jnp.ones(())
        state = optimizer.init(params)
        for _ in range(2):
            updates, state = optimizer.update(gradient, state, params)
            params = optax.apply_updates(params, updates)
        return params

    with jax.ensure_compile_time_eval():  # so that it also works while a program is traced
        return bool(jnp.isfinite(jax.grad(two_updates)(jnp.zeros(()))))
