"""What diagnostics cost: the time of one against that of a training step, and their share of a run at a period of 100.

    python benchmarks/diagnostics.py [--rounds N]

Both take turns; T = 100, float32, images of 28x28x1 as the base dataset, at 14x14x1.
"""

import argparse

import jax
from setups import TimedTraining, seconds

from gpicl_flax import models
from gpicl_flax.tasks.families.projected_images import ProjectedImages
from gpicl_flax.terminal import text_table
from gpicl_flax.training.probes.diagnostics import Diagnostics, make_diagnose

SETTINGS = (
    ("Transformer", models.Transformer(), 32),
    ("small Transformer", models.Transformer(num_layers=2, model_size=128, num_heads=1, key_size=128), 64),
    ("LSTM 256", models.LSTM(), 32),
    ("DeltaNet", models.DeltaNet(), 16),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, metavar="N", help="turns of each (default %(default)s)")
    arguments = parser.parse_args()
    settings = Diagnostics()
    rows = [("", "B", "sequences", "step ms", "diagnostics ms", "ratio", f"share at a period of {settings.period}")]
    for name, model, batch_size in SETTINGS:
        tasks = ProjectedImages(task_batch_size=batch_size, num_tasks=None)
        training = TimedTraining(model, tasks, steps=2)
        with jax.set_mesh(training.mesh):
            count = min(settings.num_sequences, batch_size)
            diagnose = make_diagnose(model, training.task_batches, training.train, [0], count)
            step, one = seconds([training, lambda: diagnose(training.states.params)], arguments.rounds)  # noqa: B023
        step /= training.steps
        share = one / (settings.period * step + one)
        rows.append(
            (
                name,
                str(batch_size),
                str(count),
                f"{step * 1e3:.1f}",
                f"{one * 1e3:.1f}",
                f"{one / step:.2f}",
                f"{share:.2%}",
            )
        )
    print(text_table.render(rows, right=range(1, 7)))


if __name__ == "__main__":
    main()
