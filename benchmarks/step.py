"""One table of what training steps cost on this machine, and what of it: loader, tasks, model, optimiser.

    python benchmarks/step.py [--only PATTERN] [--rounds N] [--out runs/benchmark]

T = 100, float32, one Adam update a step, with images of 28x28x1 as the base dataset. The rows of a group take turns,
and each figure is the median of the rounds. The parts are programs of their own, so that they need not add up to the
step.

- tasks: images to inputs, which is drawing projections and permutations and applying them. Its form is in the name of a
  row: `gram` for an unbounded number of tasks, `span` and `dense` for a bounded one (see
  gpicl_flax/tasks/projections/spec.py).
- model: the gradient of the loss for given inputs. GFLOP: of its matrix products. peak: their flops a second, in the
  time of the whole step, against those of one large product of float32 matrices, timed in turn with the rows.
- plain loop: flax's own layers, dense projections from jax.random.normal, a step a dispatch (see plain_loop.py).
- x8, x32: a stack of so many runs. A step is then one of all members.
"""

import argparse
import contextlib
import dataclasses
import fnmatch
import json
import pathlib
import platform
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax
import psutil
from data import seconds_per_step
from flops import matmul_flops, square_product
from plain_loop import PlainLoop
from setups import TimedTraining, seconds

from gpicl_flax import models
from gpicl_flax.models import SequenceModel
from gpicl_flax.tasks.families.projected_images import ProjectedImages
from gpicl_flax.tasks.targets import sequence_losses
from gpicl_flax.terminal import text_table
from gpicl_flax.training import optimizers

STEPS = 4  # of a dispatch


@dataclasses.dataclass(frozen=True)
class Group:
    """Rows that take turns: a model on inputs of one shape, its tasks drawn in several forms, and the plain loop."""

    name: str
    model: SequenceModel
    side: int
    channels: int
    batch_size: int
    kinds: tuple[str, ...] = ("span",)
    plain: bool = True
    members: tuple[int, ...] = (1,)

    def tasks(self, kind: str) -> ProjectedImages:
        """The tasks of a row."""
        return ProjectedImages(
            input_shape=(self.side, self.side, self.channels),
            task_batch_size=self.batch_size,
            num_tasks=None if kind == "gram" else 2**25,
            projection=kind,
        )


GROUPS = (
    Group("Transformer", models.Transformer(), 14, 1, 32, ("gram", "span")),
    Group("Transformer", models.Transformer(), 28, 1, 16, ("gram", "span")),
    Group("Transformer", models.Transformer(), 32, 3, 8, ("gram", "span", "dense")),
    Group("LSTM 256", models.LSTM(), 14, 1, 32),
    Group("outer-product LSTM 32", models.OuterProductLSTM(), 14, 1, 32),
    Group("VSML 16", models.VSML(), 14, 1, 4),
    Group("LSTM 64", models.LSTM(hidden_size=64), 14, 1, 32, plain=False, members=(1, 8, 32)),
    Group("Transformer 64", models.Transformer(model_size=64, num_heads=2), 14, 1, 32, plain=False, members=(1, 8, 32)),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n\n- ")[0], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="*", metavar="PATTERN", help="groups whose name matches, such as '*LSTM*'")
    parser.add_argument("--rounds", type=int, default=9, metavar="N", help="turns of each row (default %(default)s)")
    parser.add_argument("--out", metavar="PREFIX", help="also write PREFIX.json and PREFIX.md")
    arguments = parser.parse_args()
    machine = describe_machine()
    print(as_text(machine), flush=True)
    rows = []
    for group in GROUPS:
        if fnmatch.fnmatch(group.name, arguments.only):
            found = measure(group, arguments.rounds)
            print(*(f"{row['row']}: {row['step_ms']:.1f} ms a step" for row in found), sep="\n", flush=True)
            rows += found
    table = as_table(rows)
    print(f"\n{table}")
    if arguments.out:
        out = pathlib.Path(arguments.out)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.with_suffix(".json").write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")
        out.with_suffix(".md").write_text(f"{as_text(machine)}\n\n```\n{table}\n```\n")


def describe_machine() -> dict[str, Any]:
    """Which one it is."""
    device = jax.devices()[0]
    name = device.device_kind
    if device.platform == "cpu":
        with contextlib.suppress(OSError):
            lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
            name = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), name)
    return {
        "device": name,
        "devices": jax.device_count(),
        "cores": psutil.cpu_count(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


def as_text(machine: dict[str, Any]) -> str:
    """A sentence."""
    return (
        f"{machine['device']}, {machine['devices']} device(s), {machine['cores']} cores; jax {machine['jax']}, Python "
        f"{machine['python']}; {machine['date']}."
    )


def measure(group: Group, rounds: int) -> list[dict[str, Any]]:
    """The rows of a group."""
    trainings = {
        (kind, members): TimedTraining(group.model, group.tasks(kind), num_members=members, steps=STEPS)
        for kind in group.kinds
        for members in group.members
    }
    first = next(iter(trainings.values()))
    functions: dict[Any, Callable] = dict(trainings)
    if group.plain:
        functions["plain loop"] = PlainLoop(group.model, group.tasks("span"), first.dataset)
    for kind in group.kinds:
        functions["tasks", kind] = make_tasks(trainings[kind, 1])
    inputs = make_tasks(trainings[group.kinds[0], 1], keep=True)()
    functions["model"], flops = gradient(first, inputs)
    functions["optimiser"] = update(first)
    functions["peak"], peak_flops = square_product(2048 if jax.default_backend() == "cpu" else 8192)
    times = dict(zip(functions, seconds(list(functions.values()), rounds), strict=True))

    def row(name: str, step: float, members: int = 1, **parts: float) -> dict[str, Any]:
        shape = f"{group.side}x{group.side}x{group.channels}"
        return {
            "row": f"{group.name}, {name}",
            "inputs": shape,
            "batch_size": group.batch_size,
            "members": members,
            "step_ms": step * 1e3,
            "steps_per_second": 1 / step,
            "sequences_per_second": members * group.batch_size / step,
            "model_gflop": members * flops / 1e9,
            "peak_gflops": peak_flops / times["peak"] / 1e9,
            "share_of_peak": members * flops / step / (peak_flops / times["peak"]),
        } | {f"{part}_ms": took * 1e3 for part, took in parts.items()}

    rows = []
    for (kind, members), training in trainings.items():
        parts = {}
        if members == 1:
            parts = {name: times[name] / STEPS for name in ("model", "optimiser")}
            parts |= {
                "tasks": times["tasks", kind] / STEPS,
                "loader": seconds_per_step(training.tasks, training.dataset.train, at_least=0.3),
            }
        name = kind if len(group.members) == 1 else f"x{members}"
        rows.append(row(name, times[kind, members] / STEPS, members, **parts))
    if group.plain:
        rows.append(row("plain loop", times["plain loop"]))
    base = rows[-1] if group.plain else rows[0]
    for each in rows:
        each["against_the_base"] = each["sequences_per_second"] / base["sequences_per_second"]
    return rows


def make_tasks(training: TimedTraining, keep: bool = False) -> Callable[[], Any]:
    """The inputs and labels of a dispatch [steps, B, T, ...].

    Unless they are kept, the first number of each step.
    """

    @jax.jit
    def make(run_inputs, data, batch):
        def step(_, batch):
            inputs, labels, *_ = training.task_batches.make_sequences(run_inputs.seed, batch, data, run_inputs.numbers)
            # Through the barrier all elements are needed; else the compiler would make the first one alone.
            inputs, labels = jax.lax.optimization_barrier((inputs, labels))
            return (), (inputs, labels) if keep else (inputs[0, 0, 0], labels[0, 0])

        return jax.lax.scan(step, (), batch)[1]

    run_inputs = jax.tree.map(lambda x: x[0], training.run_inputs)
    batch = {name: x[:, 0] for name, x in training.batch.items()}
    return lambda: make(run_inputs, training.data, batch)


def gradient(training: TimedTraining, sequences: tuple[jax.Array, jax.Array]) -> tuple[Callable[[], Any], int]:
    """The norms of the gradients for given sequences, and the flops of the products in one of them."""

    def norm(params, inputs, labels):
        def loss(params):
            logits: Any = training.model.apply({"params": params}, inputs, labels)
            return sequence_losses(logits, labels)[0].mean()

        return optax.tree.norm(jax.grad(loss)(params))

    params = jax.tree.map(lambda x: x[0], training.states.params)
    program = jax.jit(lambda params, sequences: jax.lax.map(lambda s: norm(params, *s), sequences))
    return lambda: program(params, sequences), matmul_flops(norm, params, *(x[0] for x in sequences))


def update(training: TimedTraining) -> Callable[[], Any]:
    """The updates of a dispatch, for one gradient."""
    optimizer = optimizers.inject(training.optimizer)

    def step(state, _):
        params, opt_state, gradient = state
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state, gradient), None

    program = jax.jit(lambda state: jax.lax.scan(step, state, length=STEPS)[0], donate_argnums=0)
    first = jax.tree.map(lambda x: x[0], training.states)
    state = first.params, first.opt_state, jax.tree.map(lambda x: 1e-3 * jnp.ones_like(x), first.params)

    def run():
        nonlocal state
        state = program(state)
        return state

    return run


def as_table(rows: list[dict[str, Any]]) -> str:
    """Readable, in milliseconds."""
    header = ("", "inputs", "B", "loader", "tasks", "model", "optimiser", "step ms", "tasks/step", "steps/s")
    header += ("sequences/s", "GFLOP", "peak", "vs base")

    def cells(row) -> Iterator[str]:
        yield from (row["row"], row["inputs"], str(row["batch_size"]))
        for part in ("loader", "tasks", "model", "optimiser"):
            yield f"{row[f'{part}_ms']:.2f}" if f"{part}_ms" in row else ""
        yield f"{row['step_ms']:.1f}"
        yield f"{row['tasks_ms'] / row['step_ms']:.1%}" if "tasks_ms" in row else ""
        yield from (f"{row['steps_per_second']:.2f}", f"{row['sequences_per_second']:,.0f}")
        yield from (f"{row['model_gflop']:.1f}", f"{row['share_of_peak']:.0%}", f"{row['against_the_base']:.2f}")

    return text_table.render([header, *(tuple(cells(row)) for row in rows)], right=range(2, len(header)))


if __name__ == "__main__":
    main()
