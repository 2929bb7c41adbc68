"""The classes of a sequence: independent draws from a Zipf distribution, or a burst.

Both are axes of Chan et al. 2022 (arXiv 2205.05055). Randomness comes in as arrays, so that hosts, with numpy, and
devices, with jax, draw by the same rule.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

SHORTEST_BURST = 9  # positions: three examples of the query's class, three of another, two of the rest, the query


class Noise(NamedTuple):
    """The randomness of the classes of sequences.

    Attributes:
      bursty: [...] uniform on [0, 1).
      classes: [..., T, C] of the standard Gumbel distribution.
      order: [..., T - 1] uniform on [0, 1).
    """

    bursty: Any
    classes: Any
    order: Any


def host_noise(rng: np.random.Generator, num_sequences: int, length: int, num_classes: int) -> Noise:
    """Returns the noise of sequences [num_sequences] of `length` positions, in numpy."""
    classes = rng.gumbel(size=(num_sequences, length, num_classes))
    return Noise(rng.random(num_sequences), classes, rng.random((num_sequences, length - 1)))


def device_noise(key: jax.Array, length: int, num_classes: int) -> Noise:
    """Returns the noise of one sequence, in jax."""
    keys = jax.random.split(key, 3)
    classes = jax.random.gumbel(keys[1], (length, num_classes))
    return Noise(jax.random.uniform(keys[0]), classes, jax.random.uniform(keys[2], (length - 1,)))


@dataclasses.dataclass(frozen=True)
class ClassDistribution:
    """A distribution of the classes of a sequence.

    Attributes:
      num_classes: C.
      burstiness: the probability that a sequence is bursty. Its last position is the query. Of the T - 1 examples
        before it, floor(3 (T - 1) / 8) are of the query's class and as many of one other class; the remaining ones are
        of classes other than these two; their order is random. The classes of other sequences are independent.
      zipf_exponent: a; class c has a probability in proportion to (c + 1)^-a, among the classes that may be drawn.
    """

    num_classes: int
    burstiness: float = 0.0
    zipf_exponent: float = 0.0

    @property
    def is_uniform(self) -> bool:
        """Whether classes are uniform and independent."""
        return not self.burstiness and not self.zipf_exponent

    def draw(self, noise: Noise) -> Any:
        """Returns classes [..., T] int32, in the library that the noise comes from."""
        xp: Any = jnp if isinstance(noise.classes, jax.Array) else np
        names = xp.arange(self.num_classes)
        # The largest of log weights plus Gumbel noise is drawn in proportion to the weights.
        scores = noise.classes - self.zipf_exponent * xp.log1p(names)
        independent = xp.argmax(scores, axis=-1)
        if not self.burstiness:
            return independent.astype(np.int32)
        count = burst_size(scores.shape[-2])
        query = independent[..., -1:]
        is_query = names == query
        other = xp.argmax(xp.where(is_query, -np.inf, scores[..., 0, :]), axis=-1)[..., None]
        is_taken = (is_query | (names == other))[..., None, :]
        rest = xp.argmax(xp.where(is_taken, -np.inf, scores[..., 2 * count : -1, :]), axis=-1)
        context = xp.concatenate([*[query] * count, *[other] * count, rest], axis=-1)
        context = xp.take_along_axis(context, xp.argsort(noise.order, axis=-1), axis=-1)
        bursty = xp.concatenate([context, query], axis=-1)
        is_bursty = xp.asarray(noise.bursty)[..., None] < self.burstiness
        return xp.where(is_bursty, bursty, independent).astype(np.int32)


def burst_size(length: int) -> int:
    """Returns how many examples a bursty sequence of `length` positions has of each of its two classes."""
    return 3 * (length - 1) // 8


def replace_labels(labels: Any, others: Any) -> jax.Array:
    """Returns the labels, with others in their place where these are not -1."""
    return jnp.where(others >= 0, others, labels)
