"""Summaries of what is measured along sequences: over all positions that count, at the first and at the last."""

import jax
import jax.numpy as jnp


def summary(measured: dict[str, jax.Array], counted: jax.Array | None, last: int | jax.Array) -> dict[str, jax.Array]:
    """Returns the metrics of a step.

    They are the mean of every quantity over the positions that count, and its means at the last of them (`_last`) and,
    except for the loss, at the first (`_first`).

    Args:
      measured: arrays [B, T], see `Targets.measure`.
      counted: [B, T], the positions that count, at least one up to `last` in every sequence; None: all.
      last: the last position that counts; an array if it changes with the step.
    """
    length = measured["loss"].shape[1]
    counts = None if isinstance(last, int) else (jnp.arange(length) <= last)[None]
    first: int | jax.Array = 0
    if counted is not None:
        counts = counted if counts is None else counted & counts
        first, last = jnp.argmax(counts, axis=1), length - 1 - jnp.argmax(counts[:, ::-1], axis=1)
    metrics = {}
    for name, values in measured.items():
        metrics[name] = values.mean(where=counts)
        metrics[f"{name}_last"] = _at(values, last).mean()
        if name != "loss":
            metrics[f"{name}_first"] = _at(values, first).mean()
    return metrics


def last_of(values: jax.Array, counted: jax.Array | None) -> jax.Array:
    """Returns the values [B, T] at the last position of each sequence that counts, [B]."""
    if counted is None:
        return values[:, -1]
    return _at(values, values.shape[1] - 1 - jnp.argmax(counted[:, ::-1], axis=1))


def _at(values: jax.Array, position: int | jax.Array) -> jax.Array:
    """Returns the values [B, T] at a position, or at that of each sequence, [B]."""
    if isinstance(position, int) or position.ndim == 0:
        return values[:, position]
    return jnp.take_along_axis(values, position[:, None], axis=1)[:, 0]
