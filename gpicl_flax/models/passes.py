"""The ways in which a stateful model goes over tokens.

A model implements all of them in one function, `StatefulModel.run`, and so does each mixer of a backbone. A part of a
model that has a part of the state goes over tokens in `over.part(key)`.
"""

import dataclasses
from typing import Any, Self

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Whole:
    """A whole sequence from an empty state, as in training. The state after it is not needed."""

    def part(self, key: Any) -> Self:
        """Returns the pass of a part of the model: this one."""
        return self


@dataclasses.dataclass(frozen=True)
class Prefill:
    """A context from an empty state, whose final state is kept.

    Attributes:
      length: the number of tokens that count; later ones do not change the state.
    """

    length: int | jax.Array

    def part(self, key: Any) -> Self:
        """Returns the pass of a part of the model: this one."""
        return self


@dataclasses.dataclass(frozen=True)
class _AfterState:
    state: Any
    length: int | jax.Array

    def part(self, key: Any) -> Self:
        """Returns the pass of the part of the model whose state is `state[key]`."""
        return dataclasses.replace(self, state=self.state[key])


@dataclasses.dataclass(frozen=True)
class Queries(_AfterState):
    """Independent tokens: each is answered as the next one after a state, and none changes it.

    Attributes:
      state: the one after `Prefill` or `Step`.
      length: the number of tokens that led to it.
    """


@dataclasses.dataclass(frozen=True)
class Step(_AfterState):
    """One token, which follows a state and changes it.

    Attributes:
      state: the one after `Prefill` or `Step`.
      length: the number of tokens that led to it.
    """


Pass = Whole | Prefill | Queries | Step


def positions(over: Pass, count: int) -> jax.Array:
    """Returns the positions of `count` tokens in their sequences, [count]: independent ones all have the same."""
    own = jnp.arange(count)
    match over:
        case Queries(_, length):
            return jnp.broadcast_to(jnp.asarray(length), own.shape)
        case Step(_, length):
            return length + own
    return own
