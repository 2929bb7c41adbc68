"""A head whose state is a matrix S [K, V] that decays, is corrected along one direction, and is written to:

    S_t = (D_t + a_t b_t^T) S_{t-1} + k_t v_t^T,   o_t = S_t^T q_t

D_t is diagonal: a decay for the head, or one for each key dimension. The output is read after the write.

| model | decay | correction (a, b) | key |
|---|---|---|---|
| linear attention, RetNet, Mamba-2, mLSTM | head | none | k |
| GLA (Yang et al., 2024) | key dimension | none | k |
| the gated delta rule (Yang, Kautz, Hatamizadeh, 2025) | head | (None, decay k) | strength k |
| KDA (Kimi Linear, 2025) | key dimension | (None, decay k) | strength k |
| RWKV-7 (Peng et al., 2025) | key dimension | (-strength k', k') | k |

All functions take

    query, key   [B, T, H, K]; the axis H may be 1 where all heads share them
    value        [B, T, H, V]; a normaliser, a sum of decayed keys, is one more column of ones
    log_decay    ln of the decay, at most 0: [B, T, H] for the head or [B, T, H, K] for each key dimension
    correction   None, or (a, b), each [B, T, H, K]. a = None stands for -key, the correction of a delta rule:
                 S_t = D_t S_{t-1} + k_t (v_t - S_{t-1}^T b_t)^T, which takes half the work
    state        S_0 [B, H, K, V], by default zero

and compute in float32 or, if `value` is that, float64. A position with key = a = 0 and log_decay = 0 changes no state.
"""

import jax
import jax.numpy as jnp

Correction = tuple[jax.Array | None, jax.Array]


def recurrent(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    log_decay: jax.Array,
    correction: Correction | None = None,
    state: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Computes step by step. Returns o [B, T, H, V], of the type of `value`, and S_T [B, H, K, V]."""
    query, key, value, log_decay, correction, state, dtype = _prepare(query, key, value, log_decay, correction, state)
    positions = jax.tree.map(lambda x: x.swapaxes(0, 1), (query, key, value, log_decay, correction))
    state, output = jax.lax.scan(_step, state, positions)
    return output.swapaxes(0, 1).astype(dtype), state


def each(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    log_decay: jax.Array,
    correction: Correction | None,
    state: jax.Array,
) -> jax.Array:
    """Computes every position as the next one after `state`. Returns o [B, T, H, V], of the type of `value`.

    It takes no state a position: S_t^T q = S^T D q + (a . q) S^T b + (k . q) v.
    """
    query, key, value, log_decay, correction, state, dtype = _prepare(query, key, value, log_decay, correction, state)

    def read(x):
        return jnp.einsum("bthk,bhkv->bthv", x, state)

    def written(x, content):
        return (x * query).sum(-1, keepdims=True) * content

    output = read(query * jnp.exp(log_decay))
    if correction is None:
        output += written(key, value)
    elif correction[0] is None:
        output += written(key, value - read(correction[1]))
    else:
        output += written(key, value) + written(correction[0], read(correction[1]))
    return output.astype(dtype)


def _step(state, position):
    q, k, v, log_decay, correction = position
    new = state * jnp.exp(log_decay)[..., None]
    if correction is not None:
        a, b = correction
        recalled = jnp.einsum("bhkv,bhk->bhv", state, b)
        if a is None:
            v = v - recalled
        else:
            new += a[..., None] * recalled[..., None, :]
    new += k[..., None] * v[..., None, :]
    return new, jnp.einsum("bhkv,bhk->bhv", new, q)


def _prepare(query, key, value, log_decay, correction, state):
    """Returns everything in the type of the computation, log_decay as [B, T, H, 1 or K], a state, and value's type."""
    dtype = value.dtype
    exact = jnp.promote_types(dtype, jnp.float32)
    if log_decay.ndim < key.ndim:
        log_decay = log_decay[..., None]
    if state is None:
        state = jnp.zeros((value.shape[0], value.shape[2], key.shape[-1], value.shape[-1]), exact)
    arrays = query, key, value, log_decay, correction, state
    return *jax.tree.map(lambda x: x.astype(exact), arrays), dtype
