"""The gated delta rule (Yang, Kautz, Hatamizadeh, 2025), step by step and in chunks; the two are equal.

A head's memory is a matrix S [K, V]. At every position it forgets a little, corrects the value that it would recall for
the key, and reads with the query:

    S_t = a_t S_{t-1} + k_t u_t^T,   u_t = b_t (v_t - (a_t S_{t-1})^T k_t),   o_t = S_t^T q_t

with the decay a in (0, 1] and the writing strength b in [0, 1]. With a = 1 it is the delta rule of DeltaNet.

All functions take query, key [B, T, H, K], value [B, T, H, V], log_decay = ln a and strength = b [B, T, H], float32,
and return o [B, T, H, V].
"""

import jax
import jax.numpy as jnp


def recurrent(query, key, value, log_decay, strength, state=None) -> tuple[jax.Array, jax.Array]:
    """Computes step by step: T matrix-vector products, from S_0 = state or zero. Also returns S_T [B, H, K, V]."""
    batch, _, heads, key_size = key.shape
    if state is None:
        state = jnp.zeros((batch, heads, key_size, value.shape[-1]), value.dtype)
    positions = jax.tree.map(lambda x: x.swapaxes(0, 1), (query, key, value, log_decay, strength))
    state, output = jax.lax.scan(_step, state, positions)
    return output.swapaxes(0, 1), state


def each(query, key, value, log_decay, strength, state) -> jax.Array:
    """Computes every position independently after the state S [B, H, K, V]."""
    return jax.vmap(lambda *position: _step(state, position)[1], 1, 1)(query, key, value, log_decay, strength)


def _step(state, position):
    q, k, v, log_a, b = position
    state = state * jnp.exp(log_a)[..., None, None]
    u = b[..., None] * (v - jnp.einsum("bhkv,bhk->bhv", state, k))
    state = state + k[..., :, None] * u[..., None, :]
    return state, jnp.einsum("bhkv,bhk->bhv", state, q)


def chunked(query, key, value, log_decay, strength, *, chunk_size: int) -> tuple[jax.Array, jax.Array]:
    """Computes in parallel within chunks of `chunk_size` positions: T / chunk_size products of matrices in sequence.

    For a chunk that begins with the state S, with A_ij the decay from position j to i and A_i that from the start,

        (I + tril(b_i A_ij k_i . k_j, -1)) U = b V - b A_i K S,   O = A_i Q S + tril(A_ij q_i . k_j) U

    so U = U_v - U_k S. U_v and U_k are solved for in all chunks at once, before the scan over chunks. Also returns S_T
    [B, H, K, V].
    """
    length = query.shape[1]
    padding = -length % chunk_size

    def split(x):  # [B, T, H, ...] -> [chunks, B, H, chunk_size, ...]; padding positions write and forget nothing
        x = jnp.pad(x, ((0, 0), (0, padding), *[(0, 0)] * (x.ndim - 2)))
        x = x.reshape(x.shape[0], -1, chunk_size, *x.shape[2:])
        return jnp.moveaxis(x, (1, 3), (0, 2))

    query, key, value, log_decay, strength = map(split, (query, key, value, log_decay, strength))
    lower = jnp.tril(jnp.ones((chunk_size, chunk_size)))
    # ln A_ij is the sum from j + 1 to i. As a difference of two sums it would lose precision after a strong decay.
    passed = jnp.einsum("il,...l,lj->...ij", lower, log_decay, jnp.tril(lower, -1), precision="highest")
    between = jnp.exp(jnp.where(lower, passed, -jnp.inf))
    from_start, to_end = jnp.exp(jnp.cumsum(log_decay, axis=-1))[..., None], between[..., -1, :, None]
    strength = strength[..., None]

    overlap = jnp.tril(strength * between * jnp.einsum("...ik,...jk->...ij", key, key), -1)
    right = jnp.concatenate([strength * value, strength * from_start * key], axis=-1)
    solved = jax.lax.linalg.triangular_solve(overlap, right, left_side=True, lower=True, unit_diagonal=True)
    u_value, u_key = jnp.split(solved, [value.shape[-1]], axis=-1)
    attention = between * jnp.einsum("...ik,...jk->...ij", query, key)

    def step(state, chunk):
        u_value, u_key, attention, query, key, decay = chunk
        u = u_value - u_key @ state
        output = query @ state + attention @ u
        return state * decay + key.swapaxes(-1, -2) @ u, output

    state = jnp.zeros((*key.shape[1:3], key.shape[-1], value.shape[-1]), value.dtype)
    chunks = (u_value, u_key, attention, query * from_start, key * to_end, from_start[..., -1:, :])
    state, output = jax.lax.scan(step, state, chunks)
    output = jnp.moveaxis(output, (0, 2), (1, 3))  # [B, chunks, chunk_size, H, V]
    return output.reshape(output.shape[0], -1, *output.shape[3:])[:, :length], state
