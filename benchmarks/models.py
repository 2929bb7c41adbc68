"""Whole training steps a second of every model, against plain flax references of the same mathematics.

    python benchmarks/models.py [--only PATTERN] [--length T] [--rounds N]

A training step draws its tasks, projects the inputs, and makes one Adam update, in float32, as `gpicl train` does.
Model and reference take turns, so that both meet the same machine; the table shows the median of the rounds.
"""

import argparse
import fnmatch
from typing import Any

import jax
from reference_models import reference
from setups import TimedTraining, seconds

from gpicl_flax import models
from gpicl_flax.models import count_parameters
from gpicl_flax.tasks.families.projected_images import ProjectedImages

LONG = 2048
MIXERS = (
    models.LinearAttention, models.RetNet, models.Mamba2, models.GLA, models.MLSTM, models.KDA, models.RWKV7,
    models.RGLRU, models.SlidingWindowTransformer, models.Hybrid,
)  # fmt: skip
# Model, its settings, height and width of the images, B, T; one channel throughout.
CASES: tuple[tuple[type[models.SequenceModel], dict[str, Any], int, int, int], ...] = (
    (models.LSTM, {"hidden_size": 256}, 14, 32, 100),
    (models.OuterProductLSTM, {"size": 32, "num_heads": 1}, 14, 32, 100),
    (models.OuterProductLSTM, {"size": 16, "num_heads": 8}, 14, 32, 100),
    (models.VSML, {"hidden_size": 16}, 14, 4, 100),
    (models.VSMLWithoutSymmetries, {"grid_size": 8}, 14, 32, 100),
    (models.DeltaNet, {}, 14, 32, 100),
    (models.Transformer, {}, 14, 32, 100),
    (models.Transformer, {}, 28, 16, 100),
    (models.MLP, {"hidden_size": 1024}, 14, 32, 100),
    *((cls, {}, 14, 32, 100) for cls in MIXERS),
    *((cls, {}, 14, 4, LONG) for cls in (models.DeltaNet, *MIXERS)),
    (models.Transformer, {"max_length": LONG}, 14, 4, LONG),
)
STEPS = 4  # of a dispatch; 1 of long sequences


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", default="*", metavar="PATTERN", help="models whose name matches, such as '*LSTM'")
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="turns of each (default %(default)s)")
    parser.add_argument("--length", type=int, metavar="T", help="only sequences of this length, 100 or 2048")
    arguments = parser.parse_args()
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}, float32")
    print(f"{'model':39} {'inputs':8} {'B':>3} {'T':>5} {'steps/s':>8} {'sequences/s':>12} {'flax steps/s':>13} ratio")
    for cls, settings, size, batch, length in CASES:
        if not fnmatch.fnmatch(cls.__name__, arguments.only) or arguments.length not in (None, length):
            continue
        tasks = ProjectedImages(input_shape=(size, size, 1), task_batch_size=batch, sequence_length=length)
        pair: tuple[Any, ...] = cls(**settings), reference(cls(**settings))  # can be hashed, which flax does not say
        sizes = [count_parameters(model, tasks.num_features, tasks.sequence_length) for model in pair]
        assert sizes[0] == sizes[1], (cls, sizes)
        steps = 1 if length == LONG else STEPS
        runs = [TimedTraining(model, tasks, steps=steps) for model in pair]
        ours, theirs = (steps / took for took in seconds(runs, arguments.rounds))
        label = f"{cls.__name__}({', '.join(f'{name}={value}' for name, value in settings.items())})"
        print(
            f"{label:39} {size}x{size}x1  {batch:3} {length:5} {ours:8.2f} {ours * batch:12.1f} {theirs:13.2f} "
            f"{ours / theirs:6.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
