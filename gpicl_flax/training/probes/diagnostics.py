"""Diagnostics: why a run stands on its plateau, and when it learns to learn.

They are measured along training on one fixed batch of unseen tasks that permute all labels, made from training examples,
whatever the run itself trains on: so runs with other biases, curricula or numbers of tasks can be compared.
"""

import dataclasses
from typing import Any

import gin
import jax
import jax.numpy as jnp
import numpy as np
import optax

from gpicl_flax.errors import check_positive_integers
from gpicl_flax.models import SequenceModel
from gpicl_flax.models.sequence_model import QUERY_KEYS, collect_query_key
from gpicl_flax.tasks import augmentation, keys, loader
from gpicl_flax.tasks.datasets.base_dataset import Split
from gpicl_flax.tasks.distribution import TaskDistribution
from gpicl_flax.tasks.projections.spec import ProjectionSpec
from gpicl_flax.training import partitioning
from gpicl_flax.training.device_data import DeviceData, projection_bytes
from gpicl_flax.training.probes import attention_stats
from gpicl_flax.training.state import vmap_members
from gpicl_flax.training.step import sequence_losses


@gin.configurable
@dataclasses.dataclass(frozen=True)
class Diagnostics:
    """When and on how much a run is diagnosed; it goes to the rows of metrics.jsonl, under 'diagnostics'.

    A row has the loss and the accuracy at the last position on unseen tasks, the norms of that loss's gradient by part of
    the model, and of a model with queries and keys, by layer and head, what they compare (see `comparisons`).

    Attributes:
      period: steps between two of them; they come at the end of a dispatch.
      num_sequences: of unseen tasks, for one of them; rounded up to what the mesh divides, and never more than a training
        step has in memory at once.
    """

    period: int = 100
    num_sequences: int = 32

    def __post_init__(self):
        check_positive_integers(self, "period", "num_sequences")


class Diagnose:
    """Called with the parameters [S, ...] of a stack: its members' diagnostics, arrays [S, ...].

    Args:
      train: the training split; the batch brings its examples where `data` does not have them.
      seeds: of the members.
      accumulation: parts that a training step splits its batch into.
    """

    def __init__(
        self,
        settings: Diagnostics,
        model: SequenceModel,
        tasks: TaskDistribution,
        projection: ProjectionSpec,
        train: Split,
        data: DeviceData,
        *,
        seeds: list[int],
        accumulation: int,
        mesh: jax.sharding.Mesh,
    ):
        count = min(settings.num_sequences, tasks.task_batch_size // accumulation)
        shards = partitioning.batch_shards(mesh)
        count = -(-count // shards) * shards
        size = count, tasks.sequence_length, len(train), train.group_size
        indices = [loader.draw_example_indices(np.random.default_rng(seed), *size) for seed in seeds]
        batch = {
            "task_ids": np.stack([tasks.unseen_task_ids(count)] * len(seeds)),
            "example_indices": np.stack(indices),
        }
        own = np.ix_(partitioning.local_members(mesh, len(seeds)), partitioning.local_rows(mesh, count))
        batch = {name: x[own][None] for name, x in batch.items()}
        batch = partitioning.shard_stacked_batches(mesh, loader.gather(train, batch) if data.split is None else batch)
        seeds = partitioning.shard_members(mesh, np.array(seeds, np.uint32))
        function = _make_diagnose(model, tasks, projection, mesh, len(seeds))
        self._diagnose = lambda params: function(params, seeds, data, batch)

    def __call__(self, params: Any) -> dict[str, Any]:
        return self._diagnose(params)


def _make_diagnose(model, tasks: TaskDistribution, projection: ProjectionSpec, mesh, num_members: int):
    max_projection_bytes = projection_bytes(mesh) // (num_members // mesh.shape["member"])

    def diagnose(params, seed, data, batch):
        batch = jax.tree.map(lambda x: x[0], batch)  # of the one step that it is
        inputs, labels = augmentation.make_sequences(
            keys.task_key(seed),
            batch["task_ids"],
            data.examples(batch),
            projection,
            num_classes=tasks.num_classes,
            permute_labels_prob=1.0,
            max_projection_bytes=max_projection_bytes,
            num_shards=partitioning.batch_shards(mesh),
        )
        inputs, labels = partitioning.constrain_batch(mesh, (inputs, labels))

        def loss_fn(params):
            logits, kept = model.apply({"params": params}, inputs, labels, mutable=[QUERY_KEYS])
            losses, correct = sequence_losses(logits, labels)
            return losses.mean(), (correct[:, -1].mean(), kept.get(QUERY_KEYS, {}))

        (loss, (accuracy, shown)), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
        norms = {name: optax.tree.norm(part) for name, part in _parts(grads).items()}
        return {
            "unseen_loss": loss,
            "unseen_accuracy_last": accuracy,
            "grad_norms": norms,
        } | _compare(shown, inputs, labels)

    stacked = vmap_members(diagnose, num_members, in_axes=(0, 0, None, 1))
    return jax.jit(lambda *arguments: partitioning.constrain_replicated(mesh, stacked(*arguments)))


def _parts(grads) -> dict[str, list[jax.Array]]:
    """The arrays of each part of the model, such as 'block_0/query': its kernel and its bias."""
    parts = {}
    for path, array in jax.tree_util.tree_leaves_with_path(grads):
        names = [entry.key for entry in path]
        parts.setdefault("/".join(names[:-1]) or names[-1], []).append(array)
    return parts


def _compare(shown, inputs: jax.Array, labels: jax.Array) -> dict[str, jax.Array]:
    """What the layers that show their queries and keys compare, [layers, heads]."""
    pairs = collect_query_key(shown)
    if not pairs:
        return {}
    results = {"matching_score": jnp.stack([attention_stats.matching_score(*pair, inputs) for pair in pairs.values()])}
    attention = [pair for layer, pair in pairs.items() if layer[-1] == "attention"]
    if attention:
        masses = [attention_stats.attention_mass(*pair, labels) for pair in attention]
        results["same_class_attention"] = jnp.stack([mass.same_class for mass in masses])
        results["previous_token_attention"] = jnp.stack([mass.previous_token for mass in masses])
        results["same_class_uniform"] = masses[0].same_class_uniform
    return results
