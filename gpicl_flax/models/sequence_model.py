"""What sequence models have in common: their interface, their tokens, their sizes."""

import functools
import re
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from clu import parameter_overview
from flax import linen as nn
from flax import traverse_util

from gpicl_flax.errors import UsageError, check_positive_integers

TOKEN_LAYOUTS = ("shifted", "aligned")
DTYPES = ("float32", "bfloat16")

QUERY_KEYS = "comparisons"  # the collection that holds what `sow_query_key` shows


class StateSize(NamedTuple):
    """Numbers that carry what was learned from the context, for one sequence.

    Attributes:
      paper: as the paper counts it (Fig 6 and 13).
      exact: every number that the next prediction can depend on.
    """

    paper: int
    exact: int


class Examples(NamedTuple):
    """A context as it came: inputs [B, T, X] and labels [B, T], of which the first `length` count."""

    inputs: jax.Array
    labels: jax.Array
    length: int | jax.Array


class Context(NamedTuple):
    """A context that has been read.

    Attributes:
      state: what the model keeps of it, a pytree of arrays [B, ...].
      last: what the token of a query shows of the last example, arrays [B, features].
      length: its number of examples.
    """

    state: Any
    last: list[jax.Array]
    length: int | jax.Array


class SequenceModel(nn.Module):
    """A learner: inputs [B, T, X] and labels [B, T] -> logits [B, T, C].

    The logits at position t depend on the inputs up to t and on the labels before t only.

    Many queries to one context: `encode` the context, then `answer`. A model that has nothing better keeps the examples, and
    reads them again for every query.

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

    def encode(self, inputs: jax.Array, labels: jax.Array, length: int | jax.Array | None = None) -> Any:
        """What `answer` needs of a context, a pytree of arrays.

        Args:
          inputs, labels: of the examples, [B, T, X] and [B, T].
          length: how many of them there are, at most T; what comes after them changes nothing. None: T.

        Raises:
          UsageError: T examples leave no room for a query in the longest sequence that the model can read.
        """
        self._check_room(inputs)
        return Examples(inputs, labels, inputs.shape[1] if length is None else length)

    def answer(self, context: Any, queries: jax.Array) -> jax.Array:
        """queries [B, Q, X] -> logits [B, Q, C], of each as if it alone came after the examples of the context."""
        inputs, labels, length = context
        batch, num_queries, num_features = queries.shape
        inputs = jnp.repeat(jnp.pad(inputs, ((0, 0), (0, 1), (0, 0))), num_queries, axis=0)
        labels = jnp.repeat(jnp.pad(labels, ((0, 0), (0, 1))), num_queries, axis=0)
        inputs = inputs.at[:, length].set(queries.reshape(-1, num_features))
        return self(inputs, labels)[:, length].reshape(batch, num_queries, -1)

    def _check_room(self, inputs: jax.Array) -> None:
        longest = self.max_sequence_length
        if longest is not None and inputs.shape[1] >= longest:
            raise UsageError(
                f"a context of {inputs.shape[1]} examples and a query are more than the {longest} positions of the "
                f"{type(self).__name__}"
            )

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

    def token_parts(self, inputs: jax.Array, labels: jax.Array) -> list[jax.Array]:
        """What a token holds: the inputs x_t(, x_{t-1}), each [B, T, X], and y_{t-1} as a one-hot vector [B, T, C]."""
        return [inputs.astype(self.dtype), *(_later(x)[:, :-1] for x in self._shown_later(inputs, labels))]

    def tokens(self, inputs: jax.Array, labels: jax.Array) -> jax.Array:
        """Tokens [B, T, X + C], or [B, T, 2 X + C] if aligned, with parts in the order x_t(, x_{t-1}), y_{t-1}."""
        return jnp.concatenate(self.token_parts(inputs, labels), axis=-1)

    def _shown_later(self, inputs: jax.Array, labels: jax.Array) -> list[jax.Array]:
        """What the token after an example shows of it: (x_t [B, T, X], if aligned, and) y_t [B, T, C]."""
        one_hot = jax.nn.one_hot(labels, self.num_classes, dtype=self.dtype)
        return [*([inputs.astype(self.dtype)] if self.token_layout == "aligned" else []), one_hot]


class StatefulModel(InContextModel):
    """An in-context model that answers from its state, without reading the context again."""

    def read(
        self, parts: list[jax.Array], length: int | jax.Array | None = None, state: Any = None
    ) -> tuple[jax.Array, Any]:
        """The logits [B, T, C] for tokens that hold `parts` (see `token_parts`), and the state.

        Args:
          length: if set, the state is that after so many tokens, else nobody needs it.
          state: if set, the tokens are no sequence: each comes alone after the `length` ones that led to this state.
        """
        raise NotImplementedError

    def __call__(self, inputs: jax.Array, labels: jax.Array) -> jax.Array:
        """inputs [B, T, X] and labels [B, T] -> logits [B, T, C]."""
        return self.read(self.token_parts(inputs, labels))[0]

    def encode(self, inputs: jax.Array, labels: jax.Array, length: int | jax.Array | None = None) -> Context:
        self._check_room(inputs)
        length = inputs.shape[1] if length is None else length
        _, state = self.read(self.token_parts(inputs, labels), length)
        return Context(state, [_later(x)[:, length] for x in self._shown_later(inputs, labels)], length)

    def answer(self, context: Context, queries: jax.Array) -> jax.Array:
        last = [jnp.broadcast_to(x[:, None], (*queries.shape[:2], x.shape[-1])) for x in context.last]
        return self.read([queries.astype(self.dtype), *last], context.length, context.state)[0]


def sow_query_key(module: nn.Module, kind: str, query: jax.Array, key: jax.Array) -> None:
    """Shows to diagnostics what a layer compares; costs nothing where the collection COMPARISONS is not asked for.

    Args:
      kind: 'attention', if the softmax of query . key / sqrt(key size) over the past weighs it, or 'memory'.
      query, key: [B, T, heads, key size].
    """
    if not module.is_initializing():
        module.sow(QUERY_KEYS, kind, {"query": query, "key": key}, reduce_fn=lambda _, new: new, init_fn=lambda: None)


def collect_query_key(shown: Any) -> dict[tuple[str, ...], tuple[jax.Array, jax.Array]]:
    """The queries and keys, float32, of each layer that showed them in the collection `shown`, by its path, whose last name is
    the kind; in the order of the layers."""
    arrays = {path: array.astype(jnp.float32) for path, array in traverse_util.flatten_dict(shown).items()}
    layers = {path[:-1] for path in arrays}
    layers = sorted(layers, key=lambda path: [int(n) for n in re.findall(r"\d+", "/".join(path))])
    return {layer: (arrays[*layer, "query"], arrays[*layer, "key"]) for layer in layers}


def _later(x: jax.Array) -> jax.Array:
    """x [B, T, n] one position later, [B, T + 1, n], with zeros at the first."""
    return jnp.pad(x, ((0, 0), (1, 0), (0, 0)))


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
