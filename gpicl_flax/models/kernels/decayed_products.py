"""Products of two positions of a chunk, weighted by what decays between them.

For a chunk of C positions, with D(i, j) the diagonal decay from after position j to after position i,

    reads   q_i^T D(i, j) k_j for j <= i        what a query at i, after the write there, sees of the write at j
    recalls b_i^T D(i - 1, j) k_j for j < i     what a correction at i, before the write there, sees of it

No decay is ever divided by another one: the small would drown. Logarithms of decays are only added, never subtracted,
and so lose no precision after a strong decay either.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Decayed(NamedTuple):
    """The products within a chunk, and what its ends see of its positions.

    Attributes:
      reads: products with each of the keys, [..., C, C].
      recalls: the same for the correction; empty without one.
      from_start: the decay from the start of the chunk to after each position, [..., C, 1 or K].
      to_end: the decay from after each position to the end of the chunk, [..., C, 1 or K].
    """

    reads: list[jax.Array]
    recalls: list[jax.Array]
    from_start: jax.Array
    to_end: jax.Array


def products(query: jax.Array, recall: jax.Array | None, keys: list[jax.Array], log_decay: jax.Array) -> Decayed:
    """Computes the products of query and recall [..., C, K] with keys [..., C, K]; log_decay is [..., C, 1 or K].

    C is a power of two if the decay has K dimensions.
    """
    return (_head_decay if log_decay.shape[-1] == 1 else _key_decay)(query, recall, keys, log_decay)


def later(x: jax.Array, first: float) -> jax.Array:
    """Moves x [..., C, D] to the next position, and puts `first` at the first one."""
    return jnp.concatenate([jnp.full_like(x[..., :1, :], first), x[..., :-1, :]], axis=-2)


def _head_decay(query, recall, keys, log_decay):
    """One decay for all key dimensions: it multiplies the products."""
    length = log_decay.shape[-2]
    lower = jnp.tril(jnp.ones((length, length), log_decay.dtype))
    passed = jnp.einsum("il,...l,lj->...ij", lower, log_decay[..., 0], jnp.tril(lower, -1), precision="highest")
    between = jnp.exp(jnp.where(lower, passed, -jnp.inf))

    def weighted(decay, x):
        return [decay * jnp.einsum("...ik,...jk->...ij", x, key) for key in keys]

    recalls = [] if recall is None else weighted(later(between, 0), recall)
    from_start = jnp.exp(jnp.cumsum(log_decay, axis=-2))
    return Decayed(weighted(between, query), recalls, from_start, between[..., -1, :, None])


def _key_decay(query, recall, keys, log_decay):
    """A decay for each key dimension, by halves: blocks of 1, 2, 4, ... positions are joined in pairs.

    What a position i of the second block sees of a position j of the first passes the border between the blocks:
    D(i, j) = D(i, border) D(border, j). So the products of a pair of blocks are one product of matrices, and all logs
    of decays are sums from a border.
    """
    from_start, to_end = log_decay[..., None, :], jnp.zeros_like(log_decay[..., None, :])  # [..., blocks, n, K], logs
    reads = [(query * key).sum(-1)[..., None, None] for key in keys]  # [..., blocks, n, n]
    recalls = [] if recall is None else [jnp.zeros_like(x) for x in reads]
    while (blocks := from_start.shape[-3]) > 1:

        def second(x, blocks=blocks):
            return x.reshape(*x.shape[:-2], blocks, -1, x.shape[-1])[..., 1::2, :, :]

        def first(x, blocks=blocks):
            return x.reshape(*x.shape[:-2], blocks, -1, x.shape[-1])[..., ::2, :, :]

        decay = jnp.exp(from_start[..., 1::2, :, :])
        before_border = jnp.exp(to_end[..., ::2, :, :])
        columns = [first(key) * before_border for key in keys]
        reads = _joined(reads, second(query) * decay, columns)
        if recall is not None:
            recalls = _joined(recalls, second(recall) * later(decay, 1), columns)
        passed = from_start[..., -1:, :]
        from_start = _pairs(from_start[..., ::2, :, :], from_start[..., 1::2, :, :] + passed[..., ::2, :, :])
        to_end = _pairs(to_end[..., ::2, :, :] + passed[..., 1::2, :, :], to_end[..., 1::2, :, :])
    reads, recalls = ([x[..., 0, :, :] for x in matrices] for matrices in (reads, recalls))
    return Decayed(reads, recalls, jnp.exp(from_start[..., 0, :, :]), jnp.exp(to_end[..., 0, :, :]))


def _pairs(first, second):
    return jnp.concatenate([first, second], axis=-2)


def _joined(diagonal, rows, columns):
    """Returns the matrices [..., pairs, 2 n, 2 n] of two diagonal blocks and, below the first, rows columns^T."""
    below = [jnp.einsum("...ik,...jk->...ij", rows, x) for x in columns]
    return [lower_blocks(x[..., ::2, :, :], y, x[..., 1::2, :, :]) for x, y in zip(diagonal, below, strict=True)]


def lower_blocks(first: jax.Array, below: jax.Array, second: jax.Array) -> jax.Array:
    """Returns [[first, 0], [below, second]] for three matrices [..., n, n]."""
    above = jnp.concatenate([first, jnp.zeros_like(below)], axis=-1)
    return jnp.concatenate([above, jnp.concatenate([below, second], axis=-1)], axis=-2)
