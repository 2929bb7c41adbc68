"""The matching initialisation of the outer-product LSTM: its cell is a memory of labelled examples from step 0.

It is not in the paper. With aligned tokens, token t holds x_t, x_{t-1} and y_{t-1}. The input MLP starts as a linear
map to E x_t, E x_{t-1} (the same random E, d = (size - C) // 2 dimensions each) and the label y_{t-1} as a one-hot
vector. A matched head then starts with constant gates, which keep most of the cell S and let a little in, and with

    S_t = 0.991 S_{t-1} + 0.024 key_scale tanh(g E x_{t-1}) tanh(y_{t-1})^T,   h_t = tanh(S_t^T g E x_t) / 2

so that entry c of its output sums how similar x_t is to the past examples of class c. The logits start as a multiple of
this output, because with a random read-out, training would destroy the memory before it finds it.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax.typing import Initializer

from gpicl_flax.errors import UsageError

# The indices of the keys and the query among a head's eight gates, and of the gates that have keys.
_ROWS, _COLUMNS, _QUERY = (0, 1, 2), (3, 4, 5), 6
_INPUT, _CANDIDATE, _FORGET = range(3)

_OFFSET = 3.0  # added to the units of the MLP, so that their relus pass E x ~ N(0, 1), except for one value in 700
_KEY_SCALE = 4.0
# The two keys of a gate, before their tanh. The gates make the weights of examples small. If small weights did, Adam's
# first steps would destroy the memory.
_GATE_KEY = 2.0  # sigmoid(1 + 4 tanh(2)^2) = 0.991, sigmoid(-4 tanh(2)^2) = 0.024
_MATCH = 2.3  # g is this over sqrt(d): at T = 40 to 100, the outputs use the range of tanh and are rarely saturated
_LOGITS = 2.0
_FEWEST_DIMENSIONS = 4  # of E x, which a head needs to distinguish inputs


class Inits(NamedTuple):
    """The initialisers of an outer-product LSTM's parameters, for C classes, m heads of size s and tokens of size n.

    Attributes:
      mlp: the weights [n, s] and [s, s].
      mlp_bias: the bias of the MLP's first layer [s].
      gates, gates_bias: the layer from the MLP to the gates, [s, m 8 s] and [m 8 s].
      recurrent: the weights from the last outputs to the gates [m s, m 8 s].
      key_scale: [], before its softplus.
      logits: the weights of the read-out [m s, C].
    """

    mlp: tuple[Initializer, Initializer]
    mlp_bias: Initializer
    gates: Initializer
    gates_bias: Initializer
    recurrent: Initializer
    key_scale: Initializer
    logits: Initializer


@dataclasses.dataclass(frozen=True)
class MatchedCell:
    """A cell whose first `matched_heads` heads are matched, each on other dimensions of E x.

    Attributes:
      num_features: X.
      num_classes: C.
      size: s, the size of the MLP and of a cell.
      num_heads: m.
      matched_heads: how many of them start matched.
    """

    num_features: int
    num_classes: int
    size: int
    num_heads: int
    matched_heads: int

    def __post_init__(self):
        needed = self.num_classes + 2 * _FEWEST_DIMENSIONS * self.matched_heads
        if self.size < needed:
            raise UsageError(
                f"OuterProductLSTM.size must be at least num_classes + {2 * _FEWEST_DIMENSIONS} x matching_heads = "
                f"{needed} for the matching initialisation, not {self.size}"
            )

    def inits(self, base: Inits) -> Inits:
        """Returns the matched initialisers. Everything that does not match is as in `base`."""
        return Inits(
            mlp=(self._tokens(base.mlp[0]), self._identity(base.mlp[1])),
            mlp_bias=self._offset,
            gates=self._gates(base.gates),
            gates_bias=self._gates_bias,
            recurrent=self._recurrent(base.recurrent),
            key_scale=self._key_scale,
            logits=self._logits(base.logits),
        )

    @property
    def _dimensions(self) -> int:
        """The number d of dimensions of E x."""
        return (self.size - self.num_classes) // 2

    @property
    def _units(self) -> int:
        """The number of MLP units that hold E x_t, E x_{t-1} and the label, in this order; all units or all but one."""
        return 2 * self._dimensions + self.num_classes

    @property
    def _gain(self) -> float:
        """The gain g."""
        return _MATCH / self._dimensions**0.5

    def _tokens(self, base: Initializer) -> Initializer:
        def init(key, shape, dtype=jnp.float32):
            base_key, projection_key = jax.random.split(key)
            x, d, units = self.num_features, self._dimensions, self._units
            projection = jax.random.normal(projection_key, (x, d), dtype) / x**0.5
            kernel = base(base_key, shape, dtype).at[:, :units].set(0)
            kernel = kernel.at[:x, :d].set(projection).at[x : 2 * x, d : 2 * d].set(projection)
            return kernel.at[2 * x :, 2 * d : units].set(jnp.eye(self.num_classes))

        return init

    def _offset(self, key, shape, dtype=jnp.float32) -> jax.Array:
        return jnp.zeros(shape, dtype).at[: self._units].set(_OFFSET)

    def _identity(self, base: Initializer) -> Initializer:
        def init(key, shape, dtype=jnp.float32):
            units = self._units
            return self._without_offset(base(key, shape, dtype)).at[:, :units].set(jnp.eye(self.size, units))

        return init

    def _gates(self, base: Initializer) -> Initializer:
        def init(key, shape, dtype=jnp.float32):
            kernel = self._by_head(self._without_offset(base(key, shape, dtype)))
            for head, dimensions in enumerate(self._dimensions_of_heads()):
                n = len(dimensions)
                # The content of a cell's other rows is zero at step 0. It can still learn: their queries are not zero.
                spare = kernel[:, head, _QUERY, n:]
                kernel = kernel.at[:, head].set(0).at[:, head, _QUERY, n:].set(spare)
                rows, columns = jnp.arange(n), jnp.arange(self.num_classes)
                kernel = kernel.at[dimensions, head, _QUERY, rows].set(self._gain)
                kernel = kernel.at[self._dimensions + dimensions, head, _ROWS[_CANDIDATE], rows].set(self._gain)
                kernel = kernel.at[2 * self._dimensions + columns, head, _COLUMNS[_CANDIDATE], columns].set(1)
            return kernel.reshape(shape)

        return init

    def _gates_bias(self, key, shape, dtype=jnp.float32) -> jax.Array:
        bias = self._by_head(jnp.zeros(shape, dtype))
        for head, dimensions in enumerate(self._dimensions_of_heads()):
            n = len(dimensions)
            bias = bias.at[head, _QUERY, :n].set(-self._gain * _OFFSET)
            bias = bias.at[head, _ROWS[_CANDIDATE], :n].set(-self._gain * _OFFSET)
            bias = bias.at[head, _COLUMNS[_CANDIDATE], : self.num_classes].set(-_OFFSET)
            for gate, sign in ((_INPUT, -1), (_FORGET, 1)):
                bias = bias.at[head, _ROWS[gate]].set(_GATE_KEY).at[head, _COLUMNS[gate]].set(sign * _GATE_KEY)
        return bias.reshape(shape)

    def _recurrent(self, base: Initializer) -> Initializer:
        def init(key, shape, dtype=jnp.float32):
            return self._by_head(base(key, shape, dtype)).at[:, : self.matched_heads].set(0).reshape(shape)

        return init

    def _key_scale(self, key, shape, dtype=jnp.float32) -> jax.Array:
        return jnp.full(shape, jnp.log(jnp.expm1(_KEY_SCALE)), dtype)

    def _logits(self, base: Initializer) -> Initializer:
        def init(key, shape, dtype=jnp.float32):
            kernel = base(key, shape, dtype)
            for head in range(self.matched_heads):
                start = head * self.size
                kernel = kernel.at[start : start + self.num_classes].set(_LOGITS * jnp.eye(self.num_classes))
            return kernel

        return init

    def _dimensions_of_heads(self) -> list[jax.Array]:
        """Returns the dimensions of E x that each matched head compares."""
        n = self._dimensions // self.matched_heads
        return [jnp.arange(head * n, (head + 1) * n) for head in range(self.matched_heads)]

    def _by_head(self, x: jax.Array) -> jax.Array:
        """Reshapes [..., m 8 s] to [..., m, 8, s]."""
        return x.reshape(*x.shape[:-1], self.num_heads, 8, self.size)

    def _without_offset(self, kernel: jax.Array) -> jax.Array:
        """Returns weights from the MLP's units [s, n] that ignore the offset, for everything that does not match."""
        return kernel.at[: self._units].add(-kernel[: self._units].mean(axis=0))
