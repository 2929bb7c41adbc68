"""Online learning of a classifier by gradient descent: what the SGD baseline and MAML have in common (Table 2)."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from gpicl_flax.errors import UsageError, check_types
from gpicl_flax.models import layers, recurrence
from gpicl_flax.models.passes import Prefill, Whole
from gpicl_flax.models.sequence_model import SequenceModel, StateSize

Params = Any


class Classifier(nn.Module):
    """A classifier of single examples: hidden ReLU layers, then linear to the logits.

    Attributes:
      num_classes: C.
      hidden_sizes: widths of the hidden layers; none: softmax regression.
      dtype: of activations.
    """

    num_classes: int
    hidden_sizes: Sequence[int]
    dtype: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """x [..., X] -> logits [..., C]."""
        x = x.astype(self.dtype)
        for number, size in enumerate(self.hidden_sizes):
            x = nn.relu(layers.linear(size, (None, None), f"hidden_{number}", dtype=self.dtype)(x))
        return layers.logits(x, self.num_classes)


def learn_online(
    apply: Callable[[Params, jax.Array], jax.Array],
    params: Params,
    optimizer: optax.GradientTransformation,
    inputs: jax.Array,
    labels: jax.Array,
    length: int | jax.Array | None = None,
) -> tuple[jax.Array, Params]:
    """At each position predicts, then makes one step of the optimiser on the cross entropy of that prediction.

    Differentiable in `params` through all steps. What differentiating keeps is the classifier and the optimiser's state
    at every position; the rest is computed again.

    Args:
      apply: (params, x [X]) -> logits [C].
      params: of the classifier before the first example.
      inputs: of one sequence, [T, X].
      labels: [T].
      length: examples that are learned; None: all.

    Returns:
      The logits [T, C], each computed before its own label was used, and the parameters after the last example.
    """

    def loss(params, x, label):
        logits = apply(params, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, label), logits

    @jax.checkpoint
    def step(carry, example):
        params, opt_state = carry
        gradient, logits = jax.grad(loss, has_aux=True)(params, *example)
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), logits

    over = Whole() if length is None else Prefill(length)
    logits, (params, _) = recurrence.run(step, (params, optimizer.init(params)), (inputs, labels), over)
    return logits, params


class OnlineLearner(SequenceModel):
    """A classifier that learns every sequence by one optimiser step an example.

    Attributes:
      hidden_sizes: widths of the classifier's hidden ReLU layers, from none to two.
      inner_optimizer: what makes the steps, an optax optimiser; in gin, `@inner/adam()` with
        `inner/adam.learning_rate`.
    """

    hidden_sizes: Sequence[int] = ()
    inner_optimizer: optax.GradientTransformation = optax.adam(1e-3)

    def __post_init__(self):
        name = type(self).__name__
        check_types(self, hidden_sizes=(tuple, list), inner_optimizer=optax.GradientTransformation)
        sizes = self.hidden_sizes
        if len(sizes) > 2 or not all(isinstance(size, int) and size > 0 for size in sizes):
            raise UsageError(f"{name}.hidden_sizes must be a list of up to two positive integers, not {sizes!r}")
        object.__setattr__(
            self, "hidden_sizes", tuple(sizes)
        )  # a model must have a hash; gin gives a list where one is written
        super().__post_init__()

    @property
    def classifier(self) -> Classifier:
        """What learns; not a part of this module, since its parameters change from position to position."""
        return Classifier(self.num_classes, self.hidden_sizes, self.dtype, parent=None)

    def initial_classifier(self, key: jax.Array, num_features: int) -> Params:
        """Fresh parameters of the classifier for X = num_features."""
        return nn.unbox(self.classifier.init(key, jnp.zeros(num_features))["params"])

    def starts(self, batch: int, num_features: int) -> Params:
        """The parameters [B, ...] that the classifiers of B sequences start from."""
        raise NotImplementedError

    def __call__(self, inputs: jax.Array, labels: jax.Array) -> jax.Array:
        """inputs [B, T, X] and labels [B, T] -> logits [B, T, C]."""
        return self._learn(inputs, labels)[0]

    def encode(self, inputs: jax.Array, labels: jax.Array, length: int | jax.Array | None = None) -> Params:
        return self._learn(inputs, labels, length)[1]

    def answer(self, context: Params, queries: jax.Array) -> jax.Array:
        return jax.vmap(self._classify)(context, queries)

    def _classify(self, params: Params, x: jax.Array) -> jax.Array:
        logits = self.classifier.apply({"params": params}, x)
        assert isinstance(logits, jax.Array)  # and no pair: no collection is mutable
        return logits

    def _learn(self, inputs, labels, length=None) -> tuple[jax.Array, Params]:
        """`learn_online` of every sequence."""

        def learn(params, inputs, labels):
            return learn_online(self._classify, params, self.inner_optimizer, inputs, labels, length)

        return jax.vmap(learn)(self.starts(len(inputs), inputs.shape[-1]), inputs, labels)

    def state_size(self, num_features: int, sequence_length: int) -> StateSize:
        """The numbers that the classifier keeps.

        paper: its parameters (Section 4.2); exact: with the moments that the optimiser keeps of them.
        """
        params = jax.eval_shape(lambda key: self.initial_classifier(key, num_features), jax.random.key(0))
        moments = jax.eval_shape(self.inner_optimizer.init, params)
        paper, extra = (
            sum(x.size for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating))
            for tree in (params, moments)
        )
        return StateSize(paper=paper, exact=paper + extra)
