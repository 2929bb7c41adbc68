"""Telemetry: how a run moves, by its gradients, its updates and Adam's moments (Figs 9, 15, 16 and 17 of the paper).

It compares the last two steps of a dispatch, and with the initial parameters, which their seed gives again: so a run
that goes on needs nothing of it in its checkpoints.
"""

import dataclasses
from typing import Any, NamedTuple

import gin
import jax
import jax.numpy as jnp
import optax

from gpicl_flax.errors import check_positive_integers


@gin.configurable
@dataclasses.dataclass(frozen=True)
class Telemetry:
    """When a run is measured; it goes to the rows of metrics.jsonl, under 'telemetry'.

    A row has, for the last step of its dispatch: the L2 norms of the gradient and of the update, and the cosines of
    each with that of the step before, of the whole model and by parameter tensor ('tensors'); the L2 distance from the
    initial parameters after it; and for optimisers that have Adam's two moments, the L2 norms of both. The gradient is
    that of the loss, before any clipping; the update is what is added to the parameters. A cosine with nothing is null.

    Attributes:
      period: steps between two of them; they come at the end of a dispatch.
    """

    period: int = 100

    def __post_init__(self):
        check_positive_integers(self, "period")


class GradAndUpdate(NamedTuple):
    """The gradient of a step and the update that the optimiser made of it, both shaped like the parameters."""

    grad: Any
    update: Any


def measure_if(
    is_last: jax.Array, before: GradAndUpdate, change: GradAndUpdate, state: Any, initial_params: Any
) -> dict[str, Any]:
    """Measures the last step of a dispatch.

    For the other steps it returns zeros of the same shapes, which cost nothing.
    """
    arguments = before, change, state.opt_state, state.params, initial_params
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(measure, *arguments))
    return jax.lax.cond(is_last, measure, lambda *_: zeros, *arguments)


def zero_grad_and_update(params: Any) -> GradAndUpdate:
    """Returns what stands for the step before the first one."""
    zeros = jax.tree.map(jnp.zeros_like, params)
    return GradAndUpdate(zeros, zeros)


def measure(
    before: GradAndUpdate, change: GradAndUpdate, opt_state: optax.OptState, params: Any, initial_params: Any
) -> dict[str, Any]:
    """Measures a step, given the change of the step before and the state that it led to.

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
    """The same, with 'tensors' by their paths in `params`, such as 'block_0/query/kernel'."""
    paths = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in jax.tree.leaves_with_path(params)]
    quantities = measured["tensors"].items()
    tensors = {path: {name: values[index] for name, values in quantities} for index, path in enumerate(paths)}
    return measured | {"tensors": tensors}


def _dot(a: jax.Array, b: jax.Array) -> jax.Array:
    # Element by element, since a product of vectors would bring sharded tensors together.
    return jnp.sum(a.astype(jnp.float32) * b.astype(jnp.float32))


def _norms_and_cosines(old: jax.Array | int, new: jax.Array | int, both: jax.Array | int) -> dict[str, jax.Array]:
    """From the squares of two vectors and their product; of many pairs at once, if these are arrays."""
    return {"norm": jnp.sqrt(new), "cosine": both / (jnp.sqrt(old) * jnp.sqrt(new))}


def _moment_norms(opt_state: optax.OptState) -> dict[str, jax.Array]:
    """Of Adam's two moments, of whatever parts of the state hold such a pair; nothing where none does."""

    def has_moments(node) -> bool:
        return hasattr(node, "mu") and hasattr(node, "nu")

    pairs = [node for node in jax.tree.leaves(opt_state, is_leaf=has_moments) if has_moments(node)]
    if not pairs:
        return {}
    return {
        "first_moment_norm": optax.tree.norm([pair.mu for pair in pairs]),
        "second_moment_norm": optax.tree.norm([pair.nu for pair in pairs]),
    }
