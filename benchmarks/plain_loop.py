"""The loop that one writes first.

It has flax's own layers, a step a dispatch, tasks from `jax.random.normal`, and images from the host.

It draws the same distribution of tasks and makes the same updates as `gpicl train`, and is what that is compared with.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training import train_state
from reference_models import reference

from gpicl_flax.models import SequenceModel
from gpicl_flax.tasks.datasets.base_dataset import BaseDataset
from gpicl_flax.tasks.families.projected_images import ProjectedImages


class PlainLoop:
    """Training steps of the flax reference of `model`.

    Images are float32 at the input shape, as a data pipeline gives them.
    """

    def __init__(self, model: SequenceModel, tasks: ProjectedImages, dataset: BaseDataset):
        batch, length, features = tasks.task_batch_size, tasks.sequence_length, tasks.num_features
        self._rng = np.random.default_rng(0)
        self._images = self._rng.normal(size=(1000, features)).astype(np.float32)
        self._labels = dataset.train.labels[:1000]
        self._size, self._key = (batch, length), jax.random.key(0)
        plain = reference(model)
        params = plain.init(self._key, jnp.zeros((1, length, features)), jnp.zeros((1, length), int))["params"]
        tx = optax.adam(1e-3, eps_root=1e-8)
        self._state = train_state.TrainState.create(apply_fn=plain.apply, params=params, tx=tx)

        def one_task(key, inputs, labels):
            projection = jax.random.normal(key, (features, features)) / jnp.sqrt(features)
            return inputs @ projection.T, jax.random.permutation(key, tasks.num_classes)[labels]

        @jax.jit
        def step(state, key, inputs, labels):
            inputs, labels = jax.vmap(one_task)(jax.random.split(key, batch), inputs, labels)

            def loss(params):
                logits = state.apply_fn({"params": params}, inputs, labels)
                return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

            value, grads = jax.value_and_grad(loss)(state.params)
            return state.apply_gradients(grads=grads), value

        self._step = step

    def __call__(self) -> float:
        """One step, whose loss is fetched as a plain loop logs it."""
        indices = self._rng.integers(len(self._images), size=self._size)
        self._key, key = jax.random.split(self._key)
        self._state, loss = self._step(self._state, key, self._images[indices], self._labels[indices])
        return float(loss)
