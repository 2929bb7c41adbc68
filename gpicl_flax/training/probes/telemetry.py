"""Telemetry: the gradients, updates and Adam's moments of a run (Figs 9, 15, 16 and 17 of the paper).

It compares the last two steps of a dispatch with each other, and with the initial parameters. These are computed again
from their seed, so a resumed run needs no telemetry in its checkpoints.
"""

import dataclasses
from typing import Any, NamedTuple

import gin
import jax
import jax.numpy as jnp
import optax

from gpicl_flax.bindings.kinds import Count, check_settings


@gin.configurable
@dataclasses.dataclass(frozen=True)
class Telemetry:
    """When a run is measured. The results go to the rows of metrics.jsonl, under 'telemetry'.

    A row describes the last step of its dispatch, for the whole model and for each parameter tensor ('tensors'): the L2
    norms of the gradient and of the update, and the cosines of each with that of the step before. It also has the L2
    distance from the initial parameters after the step and, for optimisers with Adam's two moments, the L2 norms of
    both. The gradient is that of the loss, before any clipping. The update is the change added to the parameters. A
    cosine with a zero vector is null.

    Attributes:
      period: steps between two measurements, which come at the end of a dispatch.
    """

    period: Count = 100

    def __post_init__(self):
        check_settings(self)


class GradAndUpdate(NamedTuple):
    """The gradient of a step and the update that the optimiser made of it, both shaped like the parameters."""

    grad: Any
    update: Any


def measure_if(
    is_last: jax.Array, before: GradAndUpdate, change: GradAndUpdate, state: Any, initial_params: Any
) -> dict[str, Any]:
    """Measures the last step of a dispatch. For other steps it returns zeros of the same shapes, which cost nothing."""
    arguments = before, change, state.opt_state, state.params, initial_params
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(measure, *arguments))
    return jax.lax.cond(is_last, measure, lambda *_: zeros, *arguments)


def zero_grad_and_update(params: Any) -> GradAndUpdate:
    """Returns zeros that stand for the step before the first one."""
    zeros = jax.tree.map(jnp.zeros_like, params)
    return GradAndUpdate(zeros, zeros)


def measure(
    before: GradAndUpdate, change: GradAndUpdate, opt_state: optax.OptState, params: Any, initial_params: Any
) -> dict[str, Any]:
    """Measures a step, given the gradient and update of the step before and the state after this step.

    'tensors' are arrays [tensors].
    """
    measured, tensors = {}, {}
    for name in GradAndUpdate._fields:
        old, new = jax.tree.leaves(getattr(before, name)), jax.tree.leaves(getattr(change, name))
        own = _norms_and_cosines(*(jnp.stack(list(map(_dot, a, b))) for a, b in ((old, old), (new, new), (old, new))))
        tensors |= {f"{name}_{quantity}": value for quantity, value in own.items()}
        whole = _norms_and_cosines(*(sum(map(_dot, a, b)) for a, b in ((old, old), (new, new), (old, new))))
        measured |= {f"{name}_{quantity}": value for quantity, value in whole.items()}
    measured["initial_distance"] = optax.tree.norm(optax.tree.sub(params, initial_params))
    return measured | _moment_norms(opt_state) | {"tensors": tensors}


def by_tensor(measured: dict[str, Any], params: Any) -> dict[str, Any]:
    """Returns the same measurements, with 'tensors' by their paths in `params`, such as 'block_0/query/kernel'."""
    paths = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in jax.tree.leaves_with_path(params)]
    quantities = measured["tensors"].items()
    tensors = {path: {name: values[index] for name, values in quantities} for index, path in enumerate(paths)}
    return measured | {"tensors": tensors}


def _dot(a: jax.Array, b: jax.Array) -> jax.Array:
    # Element by element, because a product of vectors would gather sharded tensors.
    return jnp.sum(a.astype(jnp.float32) * b.astype(jnp.float32))


def _norms_and_cosines(old: jax.Array | int, new: jax.Array | int, both: jax.Array | int) -> dict[str, jax.Array]:
    """Returns the norms and the cosine, given the squares of two vectors and their product, or arrays of these."""
    return {"norm": jnp.sqrt(new), "cosine": both / (jnp.sqrt(old) * jnp.sqrt(new))}


def _moment_norms(opt_state: optax.OptState) -> dict[str, jax.Array]:
    """Returns the norms of Adam's two moments in all parts of the state that have them; empty if none has."""

    def has_moments(node) -> bool:
        return hasattr(node, "mu") and hasattr(node, "nu")

    pairs = [node for node in jax.tree.leaves(opt_state, is_leaf=has_moments) if has_moments(node)]
    if not pairs:
        return {}
    return {
        "first_moment_norm": optax.tree.norm([pair.mu for pair in pairs]),
        "second_moment_norm": optax.tree.norm([pair.nu for pair in pairs]),
    }
