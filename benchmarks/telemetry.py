"""What telemetry costs: the time of a training step with and without it, and the memory of its program.

    python benchmarks/telemetry.py [--rounds N]

Both take turns; 10 steps a dispatch, T = 100, float32, images of 28x28x1 as the base dataset, at 14x14x1.
"""

import argparse
from typing import Any

from setups import TimedTraining, seconds

from gpicl_flax import models
from gpicl_flax.tasks.families.projected_images import ProjectedImages
from gpicl_flax.terminal import text_table

SETTINGS = (
    ("Transformer", models.Transformer(), 32),
    ("small Transformer", models.Transformer(num_layers=2, model_size=128, num_heads=1, key_size=128), 64),
    ("LSTM 256", models.LSTM(), 32),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, metavar="N", help="turns of each (default %(default)s)")
    arguments = parser.parse_args()
    rows: list[tuple[str, ...]] = [("", "B", "step ms", "with telemetry ms", "share", "MB", "with telemetry MB")]
    for name, model, batch_size in SETTINGS:
        tasks = ProjectedImages(task_batch_size=batch_size, num_tasks=None)
        trainings = [TimedTraining(model, tasks, steps=10, telemetry=telemetry) for telemetry in (False, True)]
        off, on = (one / 10 for one in seconds(trainings, arguments.rounds))
        memory: list[Any] = [training.compiled().memory_analysis() for training in trainings]
        sizes = [f"{(x.argument_size_in_bytes + x.temp_size_in_bytes) / 1e6:,.0f}" for x in memory]
        times = f"{off * 1e3:.1f}", f"{on * 1e3:.1f}", f"{(on - off) / on:.1%}"
        rows.append((name, str(batch_size), *times, *sizes))
    print(text_table.render(rows, right=range(1, 7)))


if __name__ == "__main__":
    main()
