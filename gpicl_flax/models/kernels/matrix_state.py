"""Heads whose state is a matrix that decays, is corrected along one direction, and is written to.

The state S [K, V] of a head and its output are

    S_t = (D_t + a_t b_t^T) S_{t-1} + k_t v_t^T,   o_t = S_t^T q_t

D_t is diagonal: a decay for the head, or one for each key dimension. The output is read after the write.

| model | decay | correction (a, b) | key | value |
|---|---|---|---|---|
| linear attention, RetNet, Mamba-2, mLSTM | head | none | k | v |
| GLA (Yang et al., 2024) | key dimension | none | k | v |
| the gated delta rule (Yang, Kautz, Hatamizadeh, 2025) | head | (None, strength decay k) | k | strength v |
| KDA (Kimi Linear, 2025) | key dimension | (None, strength decay k) | k | strength v |
| RWKV-7 (Peng et al., 2025) | key dimension | (-strength k', k') | k | v |

All functions take

    query, key   [B, T, H, K]; the axis H may be 1 where all heads share them
    value        [B, T, H, V]; a normaliser, a sum of decayed keys, is one more column of ones
    log_decay    ln of the decay, at most 0: [B, T, H] for the head or [B, T, H, K] for each key dimension
    correction   None, or (a, b), each [B, T, H, K]. a = None stands for -key, the correction of a delta rule:
                 S_t = D_t S_{t-1} + k_t (v_t - S_{t-1}^T b_t)^T, which takes half the work
    state        S_0 [B, H, K, V], by default zero

and compute in float32 or, if `value` is that, float64. A position leaves the state as it is if its key or value, its
a or b, and its log_decay are zero.
"""

import jax
import jax.numpy as jnp

from gpicl_flax.models.kernels.decayed_products import later, lower_blocks, products
from gpicl_flax.models.kernels.vector_state import decayed

# With 8 heads and keys and values of 32 on a CPU, training steps of 4 sequences of 2,048 positions and of 32 of 100
# take the least time in these, or up to 5% more, of 16, 32 and 64. (But two directions with a decay of the head, which
# no model here has, take up to a fifth less in chunks of 16.)
CHUNK_SIZE = 32  # with a decay of the head
KEY_DECAY_CHUNK_SIZE = 16  # with one of each key dimension, whose products take a step for each doubling

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
    inputs, start = _prepare(query, key, value, log_decay, correction, state)
    positions = jax.tree.map(lambda x: x.swapaxes(0, 1), inputs)
    last, output = jax.lax.scan(_step, start, positions)
    return output.swapaxes(0, 1).astype(value.dtype), last


def chunked(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    log_decay: jax.Array,
    correction: Correction | None = None,
    *,
    chunk_size: int = CHUNK_SIZE,
    state: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Computes in parallel within chunks of `chunk_size` positions, rounded up to a power of two.

    The chunks follow one another in a scan whose backward pass keeps nothing of a chunk but the state before it, and
    computes the rest again. So the memory of a training step is about that of its inputs, and little of it is fresh,
    which costs as much as the products on a CPU.

    Rounding grows with the chunk where corrections reflect (a delta rule of strength 2 without decay): after 2,047
    positions 3e-6 of the output in chunks of 16, 1.1e-5 in chunks of 64; below 5e-7 for strengths in (0, 1).

    Returns o [B, T, H, V], of the type of `value`, and S_T [B, H, K, V].
    """
    inputs, start = _prepare(query, key, value, log_decay, correction, state)
    length = query.shape[1]
    chunk_size = 1 << (min(chunk_size, length) - 1).bit_length()

    def split(x):  # [B, T, H, D] -> [chunks, B, H, chunk_size, D]; zeros at the end write and forget nothing
        x = jnp.pad(x, ((0, 0), (0, -length % chunk_size), (0, 0), (0, 0)))
        x = x.reshape(x.shape[0], -1, chunk_size, *x.shape[2:])
        return jnp.moveaxis(x, (1, 3), (0, 2))

    last, output = jax.lax.scan(jax.checkpoint(_chunk, prevent_cse=False), start, jax.tree.map(split, inputs))
    output = jnp.moveaxis(output, (0, 2), (1, 3))  # [B, chunks, chunk_size, H, V]
    return output.reshape(output.shape[0], -1, *output.shape[3:])[:, :length].astype(value.dtype), last


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
    dtype = value.dtype
    (query, key, value, log_decay, correction), start = _prepare(query, key, value, log_decay, correction, state)

    def read(x):
        return jnp.einsum("bthk,bhkv->bthv", x, start)

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
    new = decayed(state, log_decay[..., None])
    if correction is not None:
        a, b = correction
        recalled = jnp.einsum("bhkv,bhk->bhv", state, b)
        if a is None:
            v = v - recalled
        else:
            new += a[..., None] * recalled[..., None, :]
    new += k[..., None] * v[..., None, :]
    return new, jnp.einsum("bhkv,bhk->bhv", new, q)


def _chunk(state, chunk):
    """Goes from the state before a chunk [..., K, V] to the one after it; also returns its output [..., C, V].

    With D_i the decay from the start of the chunk to after position i, the recalled U, U_i = S_{i-1}^T b_i, solves

        (I - recalls of a) U = (D_{i-1} b_i)^T S + recalls of k V.
    """
    query, key, value, log_decay, correction = chunk
    a, b = correction or (None, None)
    keys, contents = [key] if a is None else [key, a], [value]
    pairs = products(query, b, keys, log_decay)
    if b is not None:
        recalled = (b * later(pairs.from_start, 1)) @ state
        if a is None:  # what is written is V - U
            contents = [_inverse(-pairs.recalls[0]) @ (value - recalled)]
        else:
            contents.append(_inverse(pairs.recalls[1]) @ (recalled + pairs.recalls[0] @ value))
    output = (query * pairs.from_start) @ state
    after = pairs.from_start[..., -1, :, None] * state
    for key, read, content in zip(keys, pairs.reads, contents, strict=True):
        output += read @ content
        after += (key * pairs.to_end).swapaxes(-1, -2) @ content
    return after, output


@jax.custom_jvp
def _inverse(lower):
    """Returns (I - lower)^-1 for a strictly lower triangular matrix [..., C, C], C a power of two.

    By halves: [[A, 0], [B, C]]^-1 = [[A^-1, 0], [-C^-1 B A^-1, C^-1]]. As stable as substitution, but all products of
    matrices.
    """
    half = lower.shape[-1] // 2
    if not half:
        return jnp.ones_like(lower)
    first, second = _inverse(jnp.stack([lower[..., :half, :half], lower[..., half:, half:]]))
    return lower_blocks(first, second @ lower[..., half:, :half] @ first, second)


@_inverse.defjvp
def _inverse_jvp(primals, tangents):
    # Two products, where the derivative of the recursion has several for each level.
    inverse = _inverse(*primals)
    return inverse, inverse @ tangents[0] @ inverse


def _prepare(query, key, value, log_decay, correction, state):
    """Returns (query, ..., correction) and a state in the type of the computation; log_decay as [B, T, H, 1 or K]."""
    if log_decay.ndim < key.ndim:
        log_decay = log_decay[..., None]
    if state is None:
        state = jnp.zeros((value.shape[0], value.shape[2], key.shape[-1], value.shape[-1]))
    exact = jnp.promote_types(value.dtype, jnp.float32)
    return jax.tree.map(lambda x: x.astype(exact), ((query, key, value, log_decay, correction), state))
