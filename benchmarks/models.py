"""Whole training steps a second of every model, against plain flax references of the same mathematics.

    python benchmarks/models.py [--only PATTERN] [--rounds N]

A training step draws its tasks, projects the inputs, and makes one Adam update, in float32, as `gpicl train` does. Model
and reference take turns, so that both meet the same machine; the table shows the median of the rounds.
"""

import argparse
import dataclasses
import fnmatch
import statistics
import time

import flax_references
import jax
import numpy as np

from gpicl_flax import models
from gpicl_flax.models import SequenceModel, count_parameters
from gpicl_flax.tasks.base_dataset import BaseDataset, Split
from gpicl_flax.tasks.distribution import TaskDistribution
from gpicl_flax.tasks.loader import TrainingBatches
from gpicl_flax.training import partitioning
from gpicl_flax.training.optimizers import adam
from gpicl_flax.training.placement import place
from gpicl_flax.training.step import init_state, make_train_steps

# Model, its settings, height and width of the images, B; T = 100 and one channel throughout.
CASES = (
    (models.LSTM, {"hidden_size": 256}, 14, 32),
    (models.OuterProductLSTM, {"size": 32, "num_heads": 1}, 14, 32),
    (models.OuterProductLSTM, {"size": 16, "num_heads": 8}, 14, 32),
    (models.VSML, {"hidden_size": 16}, 14, 4),
    (models.VSMLWithoutSymmetries, {"grid_size": 8}, 14, 32),
    (models.DeltaNet, {}, 14, 32),
    (models.Transformer, {}, 14, 32),
    (models.Transformer, {}, 28, 16),
    (models.MLP, {"hidden_size": 1024}, 14, 32),
)
STEPS = 4  # of a dispatch


def reference(model: SequenceModel) -> SequenceModel:
    """The flax reference with the settings of `model`."""
    cls = getattr(flax_references, type(model).__name__)
    names = {field.name for field in dataclasses.fields(cls)} - {"parent", "name"}
    return cls(**{name: getattr(model, name) for name in names})


def training(model: SequenceModel, tasks: TaskDistribution):
    """Compiles the training step; returns a function that makes STEPS of them and returns the seconds they took."""
    mesh = partitioning.MeshShape(data=1).build()
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (1000, tasks.num_features), dtype=np.uint8)
    split = Split(images, rng.integers(0, 10, 1000).astype(np.int32))
    dataset = BaseDataset("noise", split, split, float(images.mean()), float(images.std()), tasks.input_shape, 10)
    optimizer = adam()
    with jax.set_mesh(mesh):
        state = init_state(model, optimizer, tasks, seed=0, mesh=mesh)
        shardings = jax.tree.map(lambda x: x.sharding, state)
        train_steps = make_train_steps(model, optimizer, tasks, mesh=mesh, shardings=shardings)
        placed = place(mesh, dataset, split, normalize=True)
        batch = next(TrainingBatches(tasks, split, seed=0, steps_per_batch=STEPS))
        batch = partitioning.shard_batch(mesh, batch, batch_axis=1)

    def run() -> float:
        nonlocal state
        start = time.perf_counter()
        with jax.set_mesh(mesh):
            state, metrics = train_steps(state, np.uint32(0), placed, batch)
            jax.block_until_ready(metrics)
        return (time.perf_counter() - start) / STEPS

    run()
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="*", metavar="PATTERN", help="models whose name matches, such as '*LSTM'")
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="turns of each (default %(default)s)")
    arguments = parser.parse_args()
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}, T = 100, float32")
    print(f"{'model':39} {'inputs':8} {'B':>3} {'steps/s':>8} {'sequences/s':>12} {'flax steps/s':>13} {'ratio':>6}")
    for cls, settings, size, batch in CASES:
        if not fnmatch.fnmatch(cls.__name__, arguments.only):
            continue
        tasks = TaskDistribution(input_shape=(size, size, 1), task_batch_size=batch)
        pair = cls(**settings), reference(cls(**settings))
        sizes = [count_parameters(model, tasks.num_features, tasks.sequence_length) for model in pair]
        assert sizes[0] == sizes[1], (cls, sizes)
        runs = [training(model, tasks) for model in pair]
        rounds = [[run() for run in runs] for _ in range(arguments.rounds)]
        ours, theirs = (1 / statistics.median(seconds) for seconds in zip(*rounds, strict=True))
        label = f"{cls.__name__}({', '.join(f'{name}={value}' for name, value in settings.items())})"
        print(
            f"{label:39} {size}x{size}x1  {batch:3} {ours:8.2f} {ours * batch:12.1f} {theirs:13.2f} {ours / theirs:6.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
