"""What sequence models have in common: their interface, their tokens, their sizes."""

import functools
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from clu import parameter_overview
from flax import linen as nn

from gpicl_flax.errors import UsageError, check_positive_integers

TOKEN_LAYOUTS = ("shifted", "aligned")
DTYPES = ("float32", "bfloat16")

COMPARISONS = "comparisons"  # the collection that holds what `show_comparison` shows


class StateSize(NamedTuple):
    """Numbers that carry what was learned from the context, for one sequence.

    Attributes:
      paper: as the paper counts it (Fig 6 and 13).
      exact: every number that the next prediction can depend on.
    """

    paper: int
    exact: int


class SequenceModel(nn.Module):
    """A learner: inputs [B, T, X] and labels [B, T] -> logits [B, T, C].

    The logits at position t depend on the inputs up to t and on the labels before t only.

    Attributes:
      num_classes: C.
      dtype: of activations; parameters, logits and losses stay float32.
    """

    num_classes: int = 10
    dtype: str = "float32"

    # Whether there is anything to meta-train. A learner without parameters is only meta-tested, and may draw random
    # numbers from the stream 'learner'.
    is_meta_trained: ClassVar[bool] = True

    def __post_init__(self):
        if self.dtype not in DTYPES:
            raise UsageError(f"{type(self).__name__}.dtype must be one of {', '.join(DTYPES)}, not {self.dtype!r}")
        check_positive_integers(self, "num_classes")
        super().__post_init__()

    def state_size(self, num_features: int, sequence_length: int) -> StateSize:
        """The state size for X = num_features after a context of `sequence_length` examples."""
        raise NotImplementedError

    @property
    def max_sequence_length(self) -> int | None:
        """The longest sequence the model can read; None: any."""
        return None


class InContextModel(SequenceModel):
    """A sequence model that reads examples and labels as tokens, and learns in its activations alone.

    Attributes:
      token_layout: 'shifted': token t holds x_t and y_{t-1} (the paper's); 'aligned': token t holds x_t and the whole
        previous example, x_{t-1} and y_{t-1}. What lies before the first example is zero.
    """

    token_layout: str = "shifted"

    def __post_init__(self):
        if self.token_layout not in TOKEN_LAYOUTS:
            raise UsageError(
                f"{type(self).__name__}.token_layout must be one of {', '.join(TOKEN_LAYOUTS)}, not {self.token_layout!r}"
            )
        super().__post_init__()

    def token_parts(self, inputs: jax.Array, labels: jax.Array) -> tuple[list[jax.Array], jax.Array]:
        """What a token holds: the inputs x_t(, x_{t-1}), each [B, T, X], and y_{t-1} as a one-hot vector [B, T, C]."""
        inputs = inputs.astype(self.dtype)
        previous_labels = _previous(jax.nn.one_hot(labels, self.num_classes, dtype=self.dtype))
        return [inputs, *([_previous(inputs)] if self.token_layout == "aligned" else [])], previous_labels

    def tokens(self, inputs: jax.Array, labels: jax.Array) -> jax.Array:
        """Tokens [B, T, X + C], or [B, T, 2 X + C] if aligned, with parts in the order x_t(, x_{t-1}), y_{t-1}."""
        examples, previous_labels = self.token_parts(inputs, labels)
        return jnp.concatenate([*examples, previous_labels], axis=-1)


def show_comparison(module: nn.Module, kind: str, query: jax.Array, key: jax.Array) -> None:
    """Shows to diagnostics what a layer compares; costs nothing where the collection COMPARISONS is not asked for.

    Args:
      kind: 'attention', if the softmax of query . key / sqrt(key size) over the past weighs it, or 'memory'.
      query, key: [B, T, heads, key size].
    """
    if not module.is_initializing():
        module.sow(COMPARISONS, kind, {"query": query, "key": key}, reduce_fn=lambda _, new: new, init_fn=lambda: None)


def _previous(x: jax.Array) -> jax.Array:
    """x [B, T, ...] one position later along T, with zeros at the first."""
    return jnp.pad(x, ((0, 0), (1, 0), (0, 0)))[:, :-1]


def abstract_parameters(model: SequenceModel, num_features: int, sequence_length: int):
    """The shapes of the model's parameters for X = num_features, without computing anything."""
    inputs = jax.ShapeDtypeStruct((1, sequence_length, num_features), jnp.float32)
    labels = jax.ShapeDtypeStruct((1, sequence_length), jnp.int32)
    return jax.eval_shape(model.init, jax.random.key(0), inputs, labels).get("params", {})


SIZE_NAMES = {"parameters": "parameters", "state_size_paper": "state (paper)", "state_size_exact": "state (exact)"}


def sizes(model: SequenceModel, num_features: int, sequence_length: int) -> dict[str, int]:
    """The model's number of parameters and both state sizes, under the keys of SIZE_NAMES."""
    state = model.state_size(num_features, sequence_length)
    counts = count_parameters(model, num_features, sequence_length), state.paper, state.exact
    return dict(zip(SIZE_NAMES, counts, strict=True))


# A sweep has many points of one model, and tracing it takes most of the time of a listing.
@functools.lru_cache(maxsize=1024)
def count_parameters(model: SequenceModel, num_features: int, sequence_length: int) -> int:
    """The model's number of parameters for X = num_features."""
    parameters = nn.unbox(abstract_parameters(model, num_features, sequence_length))
    return int(parameter_overview.count_parameters(parameters))
