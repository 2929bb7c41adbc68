"""The common parts of sequence models: their interface, their tokens and their sizes."""

import functools
import re
from fractions import Fraction
from typing import Any, ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
from clu import parameter_overview
from flax import linen as nn
from flax import traverse_util

from gpicl_flax.bindings.kinds import Width, check_settings
from gpicl_flax.errors import UsageError
from gpicl_flax.models import passes, scaling
from gpicl_flax.models.passes import Pass

TOKEN_LAYOUTS = ("shifted", "aligned")
DTYPES = ("float32", "bfloat16")
CLASSES, NUMBERS, NORMALS = PREDICTIONS = ("classes", "numbers", "normals")

QUERY_KEYS = "comparisons"  # the collection that holds what `sow_query_key` records


class StateSize(NamedTuple):
    """The number of values that carry what was learned from the context, for one sequence.

    Attributes:
      paper: the paper's count (Fig 6 and 13).
      exact: counts every value that the next prediction can depend on. `tests/models/state_audit_test.py` holds it.
    """

    paper: int
    exact: int


class UnreadContext(NamedTuple):
    """A context as it was given: inputs [B, T, X] and labels, or numbers, [B, T], of which the first `length` count."""

    inputs: jax.Array
    labels: jax.Array
    length: int | jax.Array


class Context(NamedTuple):
    """A context that has been read.

    Attributes:
      state: the part of it that the model keeps, a pytree of arrays [B, ...].
      last: the part of a query's token that comes from the last example, arrays [B, features].
      length: its number of examples.
    """

    state: Any
    last: list[jax.Array]
    length: int | jax.Array


class SequenceModel(nn.Module):
    """A learner: inputs [B, T, X] and labels [B, T] -> logits [B, T, C].

    The logits at position t depend on the inputs up to t and on the labels before t only. A model may also predict
    numbers: then the labels are float32, and in the place of C logits are one or two outputs (see `num_outputs`).

    To answer many queries to one context, `encode` the context, then `answer`. By default a model keeps the examples,
    and reads them again for every query.

    Attributes:
      num_classes: C; of no meaning for a model that predicts numbers.
      predicts: 'classes': logits [B, T, C]; 'numbers': the number itself [B, T, 1]; 'normals': its mean and log
        variance [B, T, 2]. A run sets it from its task family.
      dtype: the type of activations, or, in a model that would amplify their rounding, of what the gradients of
        parameters are made from (see `models.products`); parameters, logits and losses stay float32. `compute_dtype`
        says which of the two a model does.
      parametrization: 'standard'; or 'mup': initial values, multipliers and the steps of the optimiser scale from the
        base size so that a learning rate that was found there fits any size (see `models.scaling`).
      base_width: the width at which 'mup' is the standard parametrisation, in units of the first of `growing`.
    """

    num_classes: Width = 10
    dtype: str = "float32"
    predicts: str = CLASSES
    parametrization: str = scaling.STANDARD
    base_width: Width | None = None

    # Whether there is anything to meta-train. A learner without parameters is only meta-tested, and may draw random
    # numbers from the stream 'learner'.
    is_meta_trained: ClassVar[bool] = True
    # What the model can predict: its outputs and tokens must follow `predicts` for anything but classes.
    predictable: ClassVar[tuple[str, ...]] = (CLASSES,)

    # The settings that grow with the width, in proportion; the first of them is the width. Those that are None do not
    # count. A model that names none has no 'mup'.
    growing: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self):
        check_settings(self)
        if self.predicts not in self.predictable:
            raise UsageError(
                f"{type(self).__name__}.predicts must be one of {', '.join(self.predictable)}, not {self.predicts!r}"
            )
        if self.dtype not in DTYPES:
            raise UsageError(f"{type(self).__name__}.dtype must be one of {', '.join(DTYPES)}, not {self.dtype!r}")
        self._check_parametrization()
        super().__post_init__()

    def _check_parametrization(self) -> None:
        """Raises UsageError unless the base width is known and is one that the model can have."""
        name = type(self).__name__
        if self.parametrization not in scaling.PARAMETRIZATIONS:
            raise UsageError(
                f"{name}.parametrization must be one of {', '.join(scaling.PARAMETRIZATIONS)}, "
                f"not {self.parametrization!r}"
            )
        if self.parametrization == scaling.MUP:
            if not self.growing:
                raise UsageError(f"{name}.parametrization = 'mup' is not defined: {name} says of no width how it grows")
            if self.base_width is None:
                raise UsageError(f"{name}.parametrization = 'mup' needs {name}.base_width, the width that was tuned")
            self.grown(self.base_width)

    @property
    def width(self) -> int:
        """The width, in units of the first of `growing`."""
        return getattr(self, self.growing[0])

    @property
    def width_ratio(self) -> float:
        """The width over the base width; 1 in the standard parametrisation."""
        base = self.base_width if self.parametrization == scaling.MUP else None
        return 1.0 if base is None else self.width / base

    def grown(self, width: int) -> dict[str, Any]:
        """Returns the settings of this model that grow, at another width.

        Raises:
          UsageError: one of them would be no whole number.
        """
        return self._multiplied(Fraction(width, self.width), self.growing)

    def _multiplied(self, factor: Fraction, names: tuple[str, ...]) -> dict[str, Any]:
        settings = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        for name, value in settings.items():
            if (value * factor).denominator != 1:
                raise UsageError(
                    f"{type(self).__name__}.{name} = {value} grows with the width and would be "
                    f"{float(value * factor):g} at {float(factor):g} times the width; choose sizes that divide"
                )
        return {name: int(value * factor) for name, value in settings.items()}

    def at_width(self, width: int) -> Self:
        """Returns this model at another width, of the same base; raises UsageError as `grown` does."""
        return self.clone(**self.grown(width))

    def tensor_scales(self) -> dict[scaling.Path, scaling.TensorScale]:
        """Returns how each tensor scales from the base size; {} in the standard parametrisation."""
        return {} if self.parametrization == scaling.STANDARD else _tensor_scales(self)  # pyright: ignore[reportArgumentType]  hashable

    def depth_ratio(self, path: scaling.Path) -> float:
        """Returns the depth over the base depth for a tensor of a residual branch, and 1 for others."""
        return 1.0

    @nn.nowrap
    def init(self, *args, **kwargs):
        """Returns the initial variables, as flax's `init` does, scaled by the parametrisation."""
        variables = super().init(*args, **kwargs)
        return self._scaled(variables, {path: scale.init for path, scale in self.tensor_scales().items()})

    @nn.nowrap
    def apply(self, variables, *args, **kwargs):
        """Applies the model, as flax's `apply` does, with parameters times the multipliers of the parametrisation."""
        factors = {path: scale.multiplier for path, scale in self.tensor_scales().items()}
        return super().apply(self._scaled(variables, factors), *args, **kwargs)

    def _scaled(self, variables: Any, factors: dict[scaling.Path, float]) -> Any:
        if all(factor == 1 for factor in factors.values()) or "params" not in variables:
            return variables
        return {**variables, "params": scaling.multiply(variables["params"], factors)}

    @property
    def compute_dtype(self) -> str:
        """The type of activations: `dtype` in models that do not amplify rounding, and float32 in the others."""
        return "float32"

    @property
    def num_outputs(self) -> int:
        """The number of outputs at each position: C logits, a number, or a mean and a log variance."""
        return {CLASSES: self.num_classes, NUMBERS: 1, NORMALS: 2}[self.predicts]

    def encode(self, inputs: jax.Array, labels: jax.Array, length: int | jax.Array | None = None) -> Any:
        """Returns what `answer` needs of a context, a pytree of arrays.

        Args:
          inputs, labels: the examples, [B, T, X] and [B, T].
          length: how many of them count, at most T. Those after them change nothing. None: T.

        Raises:
          UsageError: T examples leave no room for a query in the longest sequence that the model can read.
        """
        self._check_room(inputs)
        return UnreadContext(inputs, labels, inputs.shape[1] if length is None else length)

    def answer(self, context: Any, queries: jax.Array) -> jax.Array:
        """Returns logits [B, Q, C] of queries [B, Q, X], each as if it alone followed the examples of the context."""
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
        """Returns the state size for X = num_features after a context of `sequence_length` examples."""
        raise NotImplementedError

    @property
    def max_sequence_length(self) -> int | None:
        """The longest sequence that the model can read; None: any."""
        return None


class InContextModel(SequenceModel):
    """A sequence model that reads examples and labels as tokens, and learns in its activations alone.

    Attributes:
      token_layout: 'shifted': token t holds x_t and y_{t-1} (the paper's); 'aligned': token t holds x_t and the whole
        previous example, x_{t-1} and y_{t-1}. Everything before the first example is zero.
    """

    token_layout: str = "shifted"

    def __post_init__(self):
        super().__post_init__()
        if self.token_layout not in TOKEN_LAYOUTS:
            raise UsageError(
                f"{type(self).__name__}.token_layout must be one of {', '.join(TOKEN_LAYOUTS)}, "
                f"not {self.token_layout!r}"
            )

    def token_parts(self, inputs: jax.Array, labels: jax.Array) -> list[jax.Array]:
        """Returns the parts of tokens: inputs x_t(, x_{t-1}), each [B, T, X], and y_{t-1} as one-hot vector [B, T, C].

        A number y_{t-1} is itself, [B, T, 1]. They are in the order of `tokens`.
        """
        return [inputs.astype(jnp.float32), *(_later(x)[:, :-1] for x in self._shown_later(inputs, labels))]

    def tokens(self, inputs: jax.Array, labels: jax.Array) -> jax.Array:
        """Returns tokens [B, T, X + C], or [B, T, 2 X + C] if aligned, in the order x_t(, x_{t-1}), y_{t-1}."""
        return jnp.concatenate(self.token_parts(inputs, labels), axis=-1)

    def _shown_later(self, inputs: jax.Array, labels: jax.Array) -> list[jax.Array]:
        """Returns what the token after an example shows of it: (x_t [B, T, X], if aligned, and) y_t [B, T, C or 1]."""
        if self.predicts == CLASSES:
            shown = jax.nn.one_hot(labels, self.num_classes, dtype=jnp.float32)
        else:
            shown = labels.astype(jnp.float32)[..., None]
        return [*([inputs.astype(jnp.float32)] if self.token_layout == "aligned" else []), shown]


class StatefulModel(InContextModel):
    """An in-context model that answers from its state, without reading the context again.

    A new model implements `run`; the other methods are made of it. `parts` are the parts of tokens, arrays [B, T,
    features] (see `token_parts`).
    """

    def run(self, parts: list[jax.Array], over: Pass) -> tuple[jax.Array, Any]:
        """Goes over tokens in one of the ways of `models.passes`.

        Returns:
          The logits [B, T, C], and the state after the tokens, a pytree of arrays [B, ...]. The state is used only
          after `Prefill` and `Step`.
        """
        raise NotImplementedError

    def __call__(self, inputs: jax.Array, labels: jax.Array) -> jax.Array:
        """Returns the logits [B, T, C] of inputs [B, T, X] and labels [B, T]."""
        return self.run(self.token_parts(inputs, labels), passes.Whole())[0]

    def prefill(self, parts: list[jax.Array], length: int | jax.Array) -> tuple[jax.Array, Any]:
        """Reads a context.

        Args:
          parts: those of T tokens.
          length: how many tokens count, at most T. Later ones do not change the state.

        Returns:
          The logits [B, T, C], of which the first `length` count, and the state after `length` tokens.
        """
        return self.run(parts, passes.Prefill(length))

    def answer_from(self, state: Any, parts: list[jax.Array], length: int | jax.Array) -> jax.Array:
        """Answers T independent queries, each as the next token after `state`.

        Args:
          state: a result of `prefill` or `decode`.
          parts: those of the T queries.
          length: how many tokens led to the state.

        Returns:
          The logits [B, T, C].
        """
        return self.run(parts, passes.Queries(state, length))[0]

    def decode(self, parts: list[jax.Array], length: int | jax.Array, state: Any) -> tuple[jax.Array, Any]:
        """Reads one more token, T = 1. Calls for one token after another are equal to one `prefill` of all tokens.

        Args:
          parts: those of the token.
          length: how many tokens led to `state`. A state that grows with the sequence has room for all the tokens that
            the first `prefill` was given, including those beyond its length.
          state: a result of `prefill` or `decode`.

        Returns:
          The logits [B, 1, C], and the state after length + 1 tokens.
        """
        return self.run(parts, passes.Step(state, length))

    def encode(self, inputs: jax.Array, labels: jax.Array, length: int | jax.Array | None = None) -> Context:
        self._check_room(inputs)
        length = inputs.shape[1] if length is None else length
        _, state = self.prefill(self.token_parts(inputs, labels), length)
        return Context(state, [_later(x)[:, length] for x in self._shown_later(inputs, labels)], length)

    def answer(self, context: Context, queries: jax.Array) -> jax.Array:
        last = [jnp.broadcast_to(x[:, None], (*queries.shape[:2], x.shape[-1])) for x in context.last]
        return self.answer_from(context.state, [queries.astype(jnp.float32), *last], context.length)


def sow_query_key(module: nn.Module, kind: str, query: jax.Array, key: jax.Array) -> None:
    """Records the queries and keys of a layer for diagnostics; costs nothing where no one requests QUERY_KEYS.

    Args:
      module: the layer.
      kind: 'attention', if the softmax of query . key / sqrt(key size) over the past weighs it, or 'memory'.
      query, key: [B, T, heads, key size].
    """
    if not module.is_initializing():
        shown: Any = {"query": query, "key": key}
        module.sow(QUERY_KEYS, kind, shown, reduce_fn=lambda _, new: new, init_fn=lambda: None)


def collect_query_key(shown: Any) -> dict[tuple[str, ...], tuple[jax.Array, jax.Array]]:
    """Returns the queries and keys, float32, of each layer that recorded them in the collection `shown`.

    The layers keep their order. The name of each is its path, whose last part is the kind.
    """
    flat: dict[tuple[str, ...], Any] = traverse_util.flatten_dict(shown)
    arrays = {path: array.astype(jnp.float32) for path, array in flat.items()}
    layers = {path[:-1] for path in arrays}
    layers = sorted(layers, key=lambda path: [int(n) for n in re.findall(r"\d+", "/".join(path))])
    return {layer: (arrays[*layer, "query"], arrays[*layer, "key"]) for layer in layers}


def _later(x: jax.Array) -> jax.Array:
    """Returns x [B, T, n] one position later, [B, T + 1, n], with zeros at the first position."""
    return jnp.pad(x, ((0, 0), (1, 0), (0, 0)))


def abstract_parameters(model: SequenceModel, num_features: int, sequence_length: int):
    """Returns the shapes of the model's parameters for X = num_features, without computing anything."""
    x64 = bool(jax.config.jax_enable_x64)
    return _abstract_parameters(model, num_features, sequence_length, x64)  # pyright: ignore[reportArgumentType]  hashable


# Cached because a sweep has many points of one model, and tracing it takes most of the time of a listing.
@functools.lru_cache(maxsize=1024)
def _abstract_parameters(model: SequenceModel, num_features: int, sequence_length: int, x64: bool):
    del x64  # a key of the cache, because types depend on it
    inputs = jax.ShapeDtypeStruct((1, sequence_length, num_features), jnp.float32)
    labels = jax.ShapeDtypeStruct((1, sequence_length), jnp.int32)
    return jax.eval_shape(model.init, jax.random.key(0), inputs, labels).get("params", {})


# Cached because every call of a model needs it, and tracing takes long.
@functools.lru_cache(maxsize=256)
def _tensor_scales(model: SequenceModel) -> dict[scaling.Path, scaling.TensorScale]:
    assert model.base_width is not None  # the model has checked it
    plain = model.clone(parent=None, name=None, parametrization=scaling.STANDARD)
    with jax.ensure_compile_time_eval():  # so that a program that is being traced has no part of this
        # The sizes of inputs and sequences do not grow with the width, so any will do.
        own, base = (abstract_parameters(each, 2, 1) for each in (plain, plain.at_width(model.base_width)))
    return scaling.compare(own, base, model.depth_ratio)


SIZE_NAMES = {"parameters": "parameters", "state_size_paper": "state (paper)", "state_size_exact": "state (exact)"}


def sizes(model: SequenceModel, num_features: int, sequence_length: int) -> dict[str, int]:
    """Returns the model's number of parameters and both state sizes, under the keys of SIZE_NAMES."""
    counts = _counts(model, num_features, sequence_length)  # pyright: ignore[reportArgumentType]  hashable
    return dict(zip(SIZE_NAMES, counts, strict=True))


@functools.lru_cache(maxsize=1024)  # as above
def _counts(model: SequenceModel, num_features: int, sequence_length: int) -> tuple[int, int, int]:
    state = model.state_size(num_features, sequence_length)
    return count_parameters(model, num_features, sequence_length), state.paper, state.exact


def count_parameters(model: SequenceModel, num_features: int, sequence_length: int) -> int:
    """Returns the model's number of parameters for X = num_features."""
    parameters = nn.unbox(abstract_parameters(model, num_features, sequence_length))
    return int(parameter_overview.count_parameters(parameters))
