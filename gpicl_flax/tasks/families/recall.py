"""Recall: pairs of a key and a class are presented once, and then each key is asked for once.

It is the multi-query associative recall of Arora et al. 2023 (arXiv 2312.04927) with continuous keys. The exact look-up
of the keys answers everything.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Pairs(NamedTuple):
    """A task: keys [N, X] float32 on the unit sphere, and their classes [N] int32."""

    keys: jax.Array
    classes: jax.Array


class RecallSequence(NamedTuple):
    """A sequence of T = 2 N positions: the pairs, and then the questions.

    Attributes:
      inputs: keys, [T, X] float32.
      targets: their classes, [T] int32.
      shown: whether later tokens may contain the class, [T] bool. It is false at questions.
      counted: whether the loss and the accuracy count the position, [T] bool. It is true at questions.
    """

    inputs: jax.Array
    targets: jax.Array
    shown: jax.Array
    counted: jax.Array


def draw_task(key: jax.Array, *, num_pairs: int, num_features: int, num_classes: int) -> Pairs:
    """Draws N keys uniformly from the unit sphere in X dimensions, and their classes uniformly and independently."""
    key_key, class_key = jax.random.split(key)
    keys = jax.random.normal(key_key, (num_pairs, num_features))
    classes = jax.random.randint(class_key, (num_pairs,), 0, num_classes)
    return Pairs(keys / jnp.linalg.norm(keys, axis=-1, keepdims=True), classes)


def draw_sequence(key: jax.Array, pairs: Pairs, *, recency_exponent: float | jax.Array = 0.0) -> RecallSequence:
    """Presents the pairs in a random order, and then asks for each key once in another one.

    Args:
      key: the key of the sequence.
      pairs: the task.
      recency_exponent: a. The next key asked for is one of those remaining, with a probability in proportion to g^-a,
        where g = 1..N counts back from the pair presented last. With 0, the order is uniform.

    Returns:
      The sequence.
    """
    num_pairs = len(pairs.classes)
    presented_key, asked_key = jax.random.split(key)
    presented = jax.random.permutation(presented_key, num_pairs)
    # Sorting log weights plus Gumbel noise draws without replacement, in proportion to the weights.
    gaps = num_pairs - jnp.arange(num_pairs)
    scores = jax.random.gumbel(asked_key, (num_pairs,)) - recency_exponent * jnp.log(gaps)
    order = jnp.concatenate([presented, presented[jnp.argsort(-scores)]])
    asked = jnp.arange(2 * num_pairs) >= num_pairs
    return RecallSequence(pairs.keys[order], pairs.classes[order], ~asked, asked)
