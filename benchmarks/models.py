"""Whole training steps a second of every model, against plain flax references of the same mathematics.

    python benchmarks/models.py [--only PATTERN] [--rounds N]

A training step draws its tasks, projects the inputs, and makes one Adam update, in float32, as `gpicl train` does.
Model and reference take turns, so that both meet the same machine; the table shows the median of the rounds.
"""

import argparse
import fnmatch
from typing import Any

import jax
from flax_references import reference
from setups import TimedTraining, seconds

from gpicl_flax import models
from gpicl_flax.models import count_parameters
from gpicl_flax.tasks.distribution import TaskDistribution

# Model, its settings, height and width of the images, B; T = 100 and one channel throughout.
CASES: tuple[tuple[type[models.SequenceModel], dict[str, Any], int, int], ...] = (
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


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", default="*", metavar="PATTERN", help="models whose name matches, such as '*LSTM'")
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="turns of each (default %(default)s)")
    arguments = parser.parse_args()
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}, T = 100, float32")
    print(f"{'model':39} {'inputs':8} {'B':>3} {'steps/s':>8} {'sequences/s':>12} {'flax steps/s':>13} {'ratio':>6}")
    for cls, settings, size, batch in CASES:
        if not fnmatch.fnmatch(cls.__name__, arguments.only):
            continue
        tasks = TaskDistribution(input_shape=(size, size, 1), task_batch_size=batch)
        pair: tuple[Any, ...] = cls(**settings), reference(cls(**settings))  # can be hashed, which flax does not say
        sizes = [count_parameters(model, tasks.num_features, tasks.sequence_length) for model in pair]
        assert sizes[0] == sizes[1], (cls, sizes)
        runs = [TimedTraining(model, tasks, steps=STEPS) for model in pair]
        ours, theirs = (STEPS / took for took in seconds(runs, arguments.rounds))
        label = f"{cls.__name__}({', '.join(f'{name}={value}' for name, value in settings.items())})"
        print(
            f"{label:39} {size}x{size}x1  {batch:3} {ours:8.2f} {ours * batch:12.1f} {theirs:13.2f} "
            f"{ours / theirs:6.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
