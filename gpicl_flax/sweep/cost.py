"""Estimates the cost of a sweep before anything runs: compute, device memory, chip-hours.

The estimates take seconds and need no compiler. Every training program is traced once and counted in its jaxpr (see
`training.cost.estimate`).
"""

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import Any

import jax

from gpicl_flax.errors import UsageError
from gpicl_flax.records.selection_rule import SELECT
from gpicl_flax.runs.run import Run
from gpicl_flax.sweep import aot
from gpicl_flax.sweep.aot import Cost, Slice
from gpicl_flax.sweep.grid import STAGES_IN_WORDS, Point
from gpicl_flax.sweep.programs import Program, programs, trace
from gpicl_flax.tasks.datasets.assumed import ASSUMPTION
from gpicl_flax.terminal import text_table
from gpicl_flax.training.cost import chips, estimate
from gpicl_flax.training.cost.chips import GIB, Chip
from gpicl_flax.training.device_data import ON_ACCELERATOR
from gpicl_flax.training.partitioning import MeshShape

UTILIZATION = 0.3


@dataclasses.dataclass(frozen=True)
class Budget:
    """The cost of points with one training program and number of steps.

    Attributes:
      name: the properties that vary in the sweep but that these points share.
      points: run ids.
      steps: those of each point.
      step_flops: those of the matrix products of one step, forward and backward.
      turns: iterations of the loops inside a step that happen one after another: no chip can do them at once.
      memory_bytes: the approximate memory of one run on a chip of its own.
      chip_hours: those of all these points.
      fits: whether a chip has that memory.
      stage: the stage of the sweep that the points belong to, '' where there is only one.
    """

    name: str
    points: tuple[str, ...]
    steps: int
    step_flops: float
    turns: int
    memory_bytes: int
    chip_hours: float
    fits: bool
    stage: str = ""

    @property
    def flops(self) -> float:
        """The flops of all these points."""
        return self.step_flops * self.steps * len(self.points)


def budget(
    points: Sequence[Point], runs: Sequence[Run], *, chip: Chip, utilization: float = UTILIZATION
) -> list[Budget]:
    """Returns the budget of the points that train, on chips of one kind.

    Args:
      points: the points of the sweep.
      runs: their settings.
      chip: the kind of chip.
      utilization: the fraction of the chip's peak flops that a step is assumed to reach.

    Raises:
      UsageError: the utilization is not in (0, 1], or a batch does not divide into the parts of its accumulation.
    """
    if not 0 < utilization <= 1:
        raise UsageError(f"the utilization must be in (0, 1], not {utilization}")
    counted: dict[str, tuple[Program, _Counts]] = {}
    for program in programs(points, runs):
        _check_accumulation(program)
        # A mesh does not matter: every device would do its part, and chip-hours stay the same.
        mesh = MeshShape(data=1, model=1).build(devices=jax.devices()[:1])
        traced, steps = trace(program.run, mesh, free_bytes=chip.usable_hbm_bytes // chip.devices)
        text = str(traced.jaxpr)
        if text in counted:
            counted[text] = counted[text][0] + program, counted[text][1]
        else:
            counted[text] = program, _count(program.run, traced, steps)
    rows = []
    for program, counts in counted.values():
        for part in program.parts():
            steps, stage = part.run.training.steps, part.points[0].stage
            hours = counts.flops * steps * len(part.points) / (chip.peak_flops * utilization) / 3600
            ids = tuple(point.run_id for point in part.points)
            fits = counts.memory <= chip.usable_hbm_bytes // chip.devices
            rows.append(Budget(part.name, ids, steps, counts.flops, counts.turns, counts.memory, hours, fits, stage))
    return rows


def _check_accumulation(program: Program) -> None:
    batch, parts = program.run.tasks.task_batch_size, program.run.training.accumulation
    if batch % parts:
        raise UsageError(
            f"{program.points[0].run_id}: {program.run.tasks.gin_name}.task_batch_size = {batch} is not divisible by "
            f"Training.accumulation = {parts}"
        )


@dataclasses.dataclass(frozen=True)
class _Counts:
    flops: float
    turns: int
    memory: int


def _count(run: Run, traced: jax.stages.Traced, steps: int) -> _Counts:
    flops, turns = estimate.matmul_flops(traced.jaxpr), estimate.loop_turns(traced.jaxpr)
    given = sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(traced.jaxpr.in_avals))
    memory = max(estimate.peak_bytes(traced.jaxpr), given + _drawing_bytes(run))
    return _Counts(flops / steps, (turns - steps) // steps, memory)


def _drawing_bytes(run: Run) -> int:
    """Returns the bytes of the tasks that a TPU makes at once, before the model reads its inputs.

    This machine makes fewer at once.
    """
    rows = run.tasks.task_batch_size // run.training.accumulation
    return min(ON_ACCELERATOR, run.tasks.drawing_bytes(run.tasks.assumed_drawing(), rows))


def as_table(
    points: Sequence[Point], runs: Sequence[Run], *, chip: str = "v5e", utilization: float = UTILIZATION
) -> str:
    """Returns the budget as a table with its totals and its assumptions.

    Raises:
      UsageError: see `chips.chip` and `budget`.
    """
    # Chip-hours follow from flops and an assumed utilization. The lines after the table state this, because loops over
    # positions and small models reach less.
    kind = chips.chip(chip)
    rows = budget(points, runs, chip=kind, utilization=utilization)
    memory = kind.usable_hbm_bytes / kind.devices / GIB
    heads = ("program", "points", "steps", "GFLOP/step", "turns", "PFLOP", "memory GiB", "chip-hours")
    table: list[tuple[str, ...]] = [heads]
    for row in sorted(rows, key=lambda row: row.stage != SELECT):
        table.append(
            (
                row.name,
                f"{len(row.points):,}",
                f"{row.steps:,}",
                f"{row.step_flops / 1e9:,.2f}",
                f"{row.turns:,}",
                f"{row.flops / 1e15:,.2f}",
                f"{row.memory_bytes / GIB:.2f}{' ' if row.fits else '!'}",
                f"{row.chip_hours:.3g}",
            )
        )
    for stage in dict.fromkeys(row.stage for row in rows if row.stage):
        table.append(_total(STAGES_IN_WORDS[stage], [row for row in rows if row.stage == stage]))
    table.append(_total("all", rows))
    lines = [
        f"An estimate for {chip} ({kind.peak_flops / 1e12:,.0f} TFLOP/s of bfloat16 products and {memory:.2f} GiB a "
        "device); nothing was compiled or run.",
        text_table.render(table, right=range(1, 8)),
        "",
        f"Chip-hours: flops at {utilization:.0%} of the chip's peak, which is an assumption: small models and those "
        "that go position",
        "by position reach less. turns: what a step's loops do one after another. Flops are those of matrix products, "
        "forward,",
        "backward and making tasks; meta-tests, diagnostics, start-up and compilation are not counted. Memory: one run "
        "on a",
        "device of its own: data, parameters, optimiser, gradients, and what the backward pass keeps; the compiler's "
        "own account",
        "(--topology) has been between a fifth and three and a half times of it.",
        *([ASSUMPTION] if any(run.tasks.has_base_datasets for run in runs) else []),
        *_remarks(rows, runs),
    ]
    return "\n".join(lines)


def _total(name: str, rows: Sequence[Budget]) -> tuple[str, ...]:
    points, flops, hours = (
        sum(each) for each in zip(*((len(r.points), r.flops, r.chip_hours) for r in rows), strict=True)
    )
    return name, f"{points:,}", "", "", "", f"{flops / 1e15:,.2f}", "", f"{hours:,.2f}"


def _remarks(rows: Sequence[Budget], runs: Sequence[Run]) -> list[str]:
    large = sum(len(row.points) for row in rows if not row.fits)
    untrained = sum(not run.training.steps for run in runs)
    lines = []
    if large:
        lines.append(
            f"{large:,} points (!) may not fit one device: more devices along the mesh, or Training.accumulation, help."
        )
    if untrained:
        lines.append(f"{untrained:,} points have Training.steps = 0: only their meta-tests, which are not counted.")
    return lines


def as_json(
    points: Sequence[Point], runs: Sequence[Run], *, chip: str = "v5e", utilization: float = UTILIZATION
) -> str:
    """Returns the budget as JSON, one object on each line; raises as `as_table` does."""
    rows = budget(points, runs, chip=chips.chip(chip), utilization=utilization)
    settings = {"chip": chip, "utilization": utilization}
    return "\n".join(json.dumps(_as_dict(row) | settings) for row in rows)


def _as_dict(row: Budget) -> dict[str, Any]:
    values = dataclasses.asdict(row) | {"flops": row.flops}
    return values if row.stage else {key: value for key, value in values.items() if key != "stage"}


def compiled_as_table(results: Sequence[tuple[Program, Cost]], on: Slice) -> str:
    """Returns the budget, with totals, by the TPU compiler's account of a step (see `aot.compile_all`)."""
    table = [("program", "points", "stack", "us/step", "memory GiB", "of", "chip-hours", "")]
    total = 0.0
    for program, cost in results:
        hours = compiled_chip_hours(program, cost, on)
        total += hours
        table.append(
            (
                program.name,
                f"{len(program.points):,}",
                str(cost.num_members),
                "" if cost.problem else f"{cost.seconds * 1e6:,.0f}",
                f"{cost.hbm_bytes / GIB:.3f}" if cost.hbm_limit else "",
                f"{cost.hbm_limit / GIB:.2f}" if cost.hbm_limit else "",
                "" if cost.problem else f"{hours:.3g}",
                cost.problem or "",
            )
        )
    num_points = sum(len(program.points) for program, _ in results)
    table.append(("all", f"{num_points:,}", "", "", "", "", f"{total:.3g}", ""))
    return "\n".join(
        [
            f"At least, on {on}, by the TPU compiler; nothing was run.",
            text_table.render(table, right=range(1, 7)),
            "",
            "us/step: the larger of two times, that of its flops at the chip's peak of bfloat16 products and that of "
            "its bytes at the",
            "bandwidth of its memory. Latencies, which rule small models and those that go position by position, and "
            "what devices say",
            "to each other come on top. Chip-hours: of all chips of the slice, each run or stack having it for itself; "
            "meta-tests,",
            "diagnostics, start-up and compilation are not counted. Points that cannot run are not in the sum.",
        ]
    )


def compiled_as_json(results: Sequence[tuple[Program, Cost]], on: Slice) -> str:
    """Returns the same as JSON, one object on each line.

    It is the output of `gpicl aot --json`, with the chip-hours of the program's points.
    """
    return "\n".join(
        json.dumps(aot.as_dict(program, cost) | {"chip_hours": compiled_chip_hours(program, cost, on)})
        for program, cost in results
    )


def compiled_chip_hours(program: Program, cost: Cost, on: Slice) -> float:
    """Returns the minimum chip-hours of the points of a compiled program, if each stack has the slice for itself."""
    stacks = -(-len(program.points) // cost.num_members)
    steps = sum(run.training.steps for run in program.runs) / len(program.runs)
    return stacks * steps * cost.seconds * on.num_chips / 3600
