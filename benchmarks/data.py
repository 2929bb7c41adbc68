"""Batches a second of the loader, by placement and workers, and its share of a training step.

    python benchmarks/data.py [--seconds N]

A batch is B sequences of T = 100 examples, from 60,000 images. With the base dataset on the device it is task ids and
example indices; where the host gathers, it is the images. The share is the time that the loader needs for the batch of
a step, over that of the training step of a small LSTM (hidden size 64) on the same sequences: a quick step to keep up
with. The loader works while the device does, so that a share under 100% need not cost any time.
"""

import argparse
import contextlib
import itertools
import time

import jax
from setups import TimedTraining, noise, seconds

from gpicl_flax.models import LSTM
from gpicl_flax.tasks.datasets.base_dataset import Split
from gpicl_flax.tasks.families.projected_images import ProjectedImages
from gpicl_flax.tasks.loader import Stream, TrainingBatches

STEPS = 10  # of a dispatch
# Input shape and B, each with the device's and the host's placement and 0 or 2 workers.
CASES = (((14, 14, 1), 128), ((32, 32, 3), 8))


def seconds_per_step(tasks: ProjectedImages, split: Split, at_least: float, **settings) -> float:
    """What the loader needs for the batch of one step, drawn as fast as it can."""
    streams = [Stream(tasks, seed=0)]
    with contextlib.closing(TrainingBatches(streams, split, steps_per_batch=STEPS, **settings)) as batches:
        for _ in range(5):  # until buffers and workers have started
            next(batches)
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < at_least:
            next(batches)
            count += 1
        return (time.perf_counter() - start) / (count * STEPS)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=float, default=3.0, metavar="N", help="for each row (default %(default)s)")
    arguments = parser.parse_args()
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}, T = 100, 60,000 examples")
    print(
        f"{'inputs':8} {'B':>3} {'placement':9} {'workers':>7} {'batches/s':>10} {'MB/s':>7} {'step':>8} {'share':>7}"
    )
    for input_shape, batch_size in CASES:
        tasks = ProjectedImages(input_shape=input_shape, task_batch_size=batch_size)
        split = noise(input_shape).train
        (step,) = seconds([TimedTraining(LSTM(hidden_size=64), tasks, steps=1)], rounds=5)
        for gather, num_workers in itertools.product((False, True), (0, 2)):
            cost = seconds_per_step(tasks, split, arguments.seconds, gather=gather, num_workers=num_workers)
            example = (split.inputs.shape[1] + 4) if gather else 4  # bytes
            nbytes = batch_size * (4 + tasks.sequence_length * example)
            print(
                f"{'x'.join(map(str, input_shape)):8} {batch_size:3} {'host' if gather else 'device':9} "
                f"{num_workers:7} {1 / cost:10,.0f} {nbytes / cost / 1e6:7,.0f} {step * 1e3:5,.0f} ms "
                f"{cost / step:7.2%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
