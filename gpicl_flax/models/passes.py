"""The ways in which a stateful model goes over tokens.

A model implements all of them in one function, `StatefulModel.run`.
"""

import dataclasses
from typing import Any

import jax


@dataclasses.dataclass(frozen=True)
class Whole:
    """A whole sequence from an empty state, as in training: nobody needs the state after it."""


@dataclasses.dataclass(frozen=True)
class Prefill:
    """A context from an empty state, to keep the state after it.

    Attributes:
      length: tokens that count; later ones change nothing in the state.
    """

    length: int | jax.Array


@dataclasses.dataclass(frozen=True)
class Queries:
    """Independent tokens: each is answered as the next one after a state, and none changes it.

    Attributes:
      state: what `Prefill` or `Step` left.
      length: tokens that led to it.
    """

    state: Any
    length: int | jax.Array


@dataclasses.dataclass(frozen=True)
class Step:
    """One token, which comes after a state and changes it.

    Attributes:
      state: what `Prefill` or `Step` left.
      length: tokens that led to it.
    """

    state: Any
    length: int | jax.Array


Pass = Whole | Prefill | Queries | Step
