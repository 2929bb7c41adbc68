"""What it costs to draw the sequences of a task family, against the gradient of the paper's Transformer on them.

    python benchmarks/families.py [--only PATTERN] [--rounds N]

A batch is B = 128 sequences of T = 100 (of the families' own T where they determine it), in float32. The families have
their own default sizes. The gradient on a batch that is there, and one program of drawing and gradient, as training has
it, take turns, and each figure is the median of the rounds. The share is what drawing adds, up to noise.
"""

import argparse
import fnmatch
from typing import Any

import jax
import numpy as np
import optax
from flax import linen as nn
from setups import seconds

from gpicl_flax import models
from gpicl_flax.tasks.families import (
    FunctionClasses,
    GaussianClasses,
    Mixture,
    NoisyLinearRegression,
    RandomFunctions,
    Recall,
    TaskFamily,
)

SIZES: dict[str, Any] = {"task_batch_size": 128, "sequence_length": 100}
FAMILIES: dict[str, TaskFamily] = {
    "NoisyLinearRegression": NoisyLinearRegression(**SIZES),
    "GaussianClasses": GaussianClasses(**SIZES),
    "Recall": Recall(num_pairs=50, task_batch_size=128),
    **{
        f"FunctionClasses {name}": FunctionClasses(function_class=name, **SIZES)
        for name in ("linear", "tree", "relu_network")
    },
    **{f"RandomFunctions {layout}": RandomFunctions(layout=layout, **SIZES) for layout in ("padded", "projected")},
    "Mixture": Mixture(families=[GaussianClasses(**SIZES), RandomFunctions(**SIZES)], **SIZES),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", default="*", metavar="PATTERN", help="families whose name matches, such as 'Random*'")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="turns of each (default %(default)s)")
    arguments = parser.parse_args()
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}, B = 128, T = 100, float32")
    print(f"{'family':30} {'X':>4} {'gradient':>10} {'both':>10} {'share':>7}")
    for name, family in FAMILIES.items():
        if fnmatch.fnmatch(name, arguments.only):
            gradient, both = measure(family, arguments.rounds)
            print(
                f"{name:30} {family.num_features:4} {gradient * 1e3:7.0f} ms {both * 1e3:7.0f} ms "
                f"{both / gradient - 1:7.1%}",
                flush=True,
            )


def measure(family: TaskFamily, rounds: int) -> list[float]:
    """Returns the seconds of the gradient of the loss on a batch, and of drawing it as well."""
    kind = family.targets
    sizes: dict[str, Any] = {"num_classes": kind.num_classes} if kind.num_classes else {"predicts": kind.predicts}
    model: Any = models.Transformer(**sizes)
    ids = np.arange(family.task_batch_size, dtype=np.uint32)
    batch = {"task_ids": ids, "sequence_seeds": ids}
    data, drawing, numbers = family.device_data(family.load(), None), family.drawing(family.load()), family.numbers()

    def draw(batch):
        return family.make_sequences(drawing, np.uint32(0), batch, data, numbers, max_bytes=2**24, num_shards=1)

    def gradient(params, sequences):
        def loss(params):
            predictions = model.apply({"params": params}, sequences.inputs, sequences.shown_targets(sequences.targets))
            return kind.measure(predictions, sequences.targets)["loss"].mean(where=sequences.counted)

        return optax.tree.norm(jax.grad(loss)(params))

    sequences = jax.jit(draw)(batch)
    first = sequences.inputs[:1], sequences.targets[:1]
    params = nn.unbox(jax.jit(model.init)(jax.random.key(0), *first))["params"]
    alone, both = jax.jit(gradient), jax.jit(lambda params, batch: gradient(params, draw(batch)))
    return seconds([lambda: alone(params, sequences), lambda: both(params, batch)], rounds)


if __name__ == "__main__":
    main()
