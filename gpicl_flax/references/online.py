"""Online learning of a classifier by gradient descent: the common part of the SGD baseline and MAML (Table 2)."""

import functools
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from gpicl_flax.bindings.kinds import Range, check_settings
from gpicl_flax.errors import UsageError
from gpicl_flax.models import layers, recurrence
from gpicl_flax.models.passes import Prefill, Whole
from gpicl_flax.models.sequence_model import SequenceModel, StateSize

Params = Any


class Classifier(nn.Module):
    """A classifier of single examples: hidden ReLU layers, then linear to the logits.

    Attributes:
      num_classes: C.
      hidden_sizes: widths of the hidden layers; none: softmax regression.
      dtype: the type that the gradients of hidden layers round to (see `models.products`).
    """

    num_classes: int
    hidden_sizes: Sequence[int]
    dtype: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x [..., X] to logits [..., C]."""
        linear = functools.partial(layers.linear, dtype="float32", backward_dtype=self.dtype)
        for number, size in enumerate(self.hidden_sizes):
            x = nn.relu(linear(size, (None, None), f"hidden_{number}")(x))
        return layers.logits(x, self.num_classes)


def learn_online(
    apply: Callable[[Params, jax.Array], jax.Array],
    params: Params,
    optimizer: optax.GradientTransformation,
    inputs: jax.Array,
    labels: jax.Array,
    length: int | jax.Array | None = None,
) -> tuple[jax.Array, Params]:
    """Predicts at each position, then makes one step of the optimiser on the cross entropy of that prediction.

    Where the label is hidden, it predicts and makes no step. It is differentiable in `params` through all steps.
    Differentiation keeps the classifier and the optimiser's state at every position, and recomputes the rest.

    Args:
      apply: (params, x [X]) -> logits [C].
      optimizer: the optimiser of the classifier.
      params: the classifier before the first example.
      inputs: those of one sequence, [T, X].
      labels: [T]; -1 where they are hidden.
      length: the number of examples that are learned; None: all.

    Returns:
      The logits [T, C], each computed before its own label was used, and the parameters after the last example.
    """

    def loss(params, x, label):
        logits = apply(params, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(label, 0)), logits

    @jax.checkpoint
    def step(carry, example):
        (params, opt_state), (x, label) = carry, example
        gradient, logits = jax.grad(loss, has_aux=True)(params, x, label)
        updates, new_state = optimizer.update(gradient, opt_state, params)
        new = optax.apply_updates(params, updates), new_state
        # A gradient of zero would not do: with momentum or weight decay, parameters would move all the same.
        return jax.tree.map(lambda new, old: jnp.where(label >= 0, new, old), new, carry), logits

    over = Whole() if length is None else Prefill(length)
    logits, (params, _) = recurrence.run(step, (params, optimizer.init(params)), (inputs, labels), over)
    return logits, params


class OnlineLearner(SequenceModel):
    """A classifier that learns every sequence with one optimiser step for each example.

    Attributes:
      hidden_sizes: widths of the classifier's hidden ReLU layers, from none to two.
      inner_optimizer: the optimiser of the steps, from optax; in gin, `@inner/adam()` with `inner/adam.learning_rate`.
    """

    hidden_sizes: Sequence[Annotated[int, Range(high=2**20)]] = ()
    inner_optimizer: optax.GradientTransformation = optax.adam(1e-3)

    def __post_init__(self):
        name = type(self).__name__
        check_settings(self)
        sizes = self.hidden_sizes
        if len(sizes) > 2 or min(sizes, default=1) < 1:
            raise UsageError(f"{name}.hidden_sizes must be a list of up to two positive integers, not {sizes!r}")
        object.__setattr__(
            self, "hidden_sizes", tuple(sizes)
        )  # a tuple, because a model must be hashable and gin passes lists
        super().__post_init__()
        if self.dtype != "float32" and not self.hidden_sizes:
            raise UsageError(
                f"{name}.dtype = {self.dtype!r} has no effect without {name}.hidden_sizes: only the gradients of "
                "hidden layers round to it; leave it out"
            )

    @property
    def classifier(self) -> Classifier:
        """The classifier. It is not part of this module, because its parameters change from position to position."""
        return Classifier(self.num_classes, self.hidden_sizes, self.dtype, parent=None)

    def initial_classifier(self, key: jax.Array, num_features: int) -> Params:
        """Returns fresh parameters of the classifier for X = num_features."""
        return nn.unbox(self.classifier.init(key, jnp.zeros(num_features))["params"])

    def starts(self, batch: int, num_features: int) -> Params:
        """Returns the parameters [B, ...] that the classifiers of B sequences start from."""
        raise NotImplementedError

    def __call__(self, inputs: jax.Array, labels: jax.Array) -> jax.Array:
        """Maps inputs [B, T, X] and labels [B, T] to logits [B, T, C]."""
        return self._learn(inputs, labels)[0]

    def encode(self, inputs: jax.Array, labels: jax.Array, length: int | jax.Array | None = None) -> Params:
        return self._learn(inputs, labels, length)[1]

    def answer(self, context: Params, queries: jax.Array) -> jax.Array:
        return jax.vmap(self._classify)(context, queries)

    def _classify(self, params: Params, x: jax.Array) -> jax.Array:
        logits = self.classifier.apply({"params": params}, x)
        assert isinstance(logits, jax.Array)  # not a pair, because no collection is mutable
        return logits

    def _learn(self, inputs, labels, length=None) -> tuple[jax.Array, Params]:
        """Applies `learn_online` to every sequence."""

        def learn(params, inputs, labels):
            return learn_online(self._classify, params, self.inner_optimizer, inputs, labels, length)

        return jax.vmap(learn)(self.starts(len(inputs), inputs.shape[-1]), inputs, labels)

    def state_size(self, num_features: int, sequence_length: int) -> StateSize:
        """Returns the number of parameters of the classifier (Section 4.2), which are all that `answer` reads.

        The moments that the optimiser keeps of them change later parameters, but no prediction from these.
        """
        params = jax.eval_shape(lambda key: self.initial_classifier(key, num_features), jax.random.key(0))
        size = sum(x.size for x in jax.tree.leaves(params))
        return StateSize(paper=size, exact=size)
