"""The ways in which a stateful model goes over tokens.

A model implements all of them in one function, `StatefulModel.run`.
"""

import dataclasses
from typing import Any

import jax


@dataclasses.dataclass(frozen=True)
class Whole:
    """A whole sequence from an empty state, as in training. The state after it is not needed."""


@dataclasses.dataclass(frozen=True)
class Prefill:
    """A context from an empty state, whose final state is kept.

    Attributes:
      length: the number of tokens that count; later ones do not change the state.
    """

    length: int | jax.Array


@dataclasses.dataclass(frozen=True)
class Queries:
    """Independent tokens: each is answered as the next one after a state, and none changes it.

    Attributes:
      state: the one after `Prefill` or `Step`.
      length: the number of tokens that led to it.
    """

    state: Any
    length: int | jax.Array


@dataclasses.dataclass(frozen=True)
class Step:
    """One token, which follows a state and changes it.

    Attributes:
      state: the one after `Prefill` or `Step`.
      length: the number of tokens that led to it.
    """

    state: Any
    length: int | jax.Array


Pass = Whole | Prefill | Queries | Step
