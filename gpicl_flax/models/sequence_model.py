"""What every sequence model has in common: its interface, its tokens, its sizes."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from clu import parameter_overview
from flax import linen as nn

from gpicl_flax.errors import UsageError, check_positive_integers

TOKEN_LAYOUTS = ("shifted", "aligned")
DTYPES = ("float32", "bfloat16")


class StateSize(NamedTuple):
    """Numbers that carry what was learned from the context, for one sequence.

    Attributes:
      paper: as the paper counts it (Fig 6 and 13).
      exact: every number that the next prediction can depend on.
    """

    paper: int
    exact: int


class SequenceModel(nn.Module):
    """An in-context learner: inputs [B, T, X] and labels [B, T] -> logits [B, T, C].

    The logits at position t depend on the inputs up to t and on the labels before t only.

    Attributes:
      num_classes: C.
      token_layout: 'shifted': token t holds x_t and y_{t-1} (the paper's); 'aligned': token t holds x_t and the whole
        previous example, x_{t-1} and y_{t-1}. What lies before the first example is zero.
      dtype: of activations; parameters, logits and losses stay float32.
    """

    num_classes: int = 10
    token_layout: str = "shifted"
    dtype: str = "float32"

    def __post_init__(self):
        if self.token_layout not in TOKEN_LAYOUTS:
            raise UsageError(
                f"{type(self).__name__}.token_layout must be one of {', '.join(TOKEN_LAYOUTS)}, not {self.token_layout!r}"
            )
        if self.dtype not in DTYPES:
            raise UsageError(f"{type(self).__name__}.dtype must be one of {', '.join(DTYPES)}, not {self.dtype!r}")
        check_positive_integers(self, "num_classes")
        super().__post_init__()

    def state_size(self, sequence_length: int) -> StateSize:
        """The state size after a context of `sequence_length` examples."""
        raise NotImplementedError

    @property
    def max_sequence_length(self) -> int | None:
        """The longest sequence the model can read; None: any."""
        return None

    def tokens(self, inputs: jax.Array, labels: jax.Array) -> jax.Array:
        """Tokens [B, T, X + C], or [B, T, 2 X + C] if aligned, with parts in the order x_t(, x_{t-1}), y_{t-1}."""
        one_hot = jax.nn.one_hot(labels, self.num_classes, dtype=self.dtype)
        inputs = inputs.astype(self.dtype)
        parts = [inputs, _previous(one_hot)]
        if self.token_layout == "aligned":
            parts.insert(1, _previous(inputs))
        return jnp.concatenate(parts, axis=-1)


def _previous(x: jax.Array) -> jax.Array:
    """x [B, T, ...] one position later along T, with zeros at the first."""
    return jnp.pad(x, ((0, 0), (1, 0), (0, 0)))[:, :-1]


def abstract_parameters(model: SequenceModel, num_features: int, sequence_length: int):
    """The shapes of the model's parameters for X = num_features, without computing anything."""
    inputs = jax.ShapeDtypeStruct((1, sequence_length, num_features), jnp.float32)
    labels = jax.ShapeDtypeStruct((1, sequence_length), jnp.int32)
    return jax.eval_shape(model.init, jax.random.key(0), inputs, labels)["params"]


def count_parameters(model: SequenceModel, num_features: int, sequence_length: int) -> int:
    """The model's number of parameters for X = num_features."""
    parameters = nn.unbox(abstract_parameters(model, num_features, sequence_length))
    return int(parameter_overview.count_parameters(parameters))
