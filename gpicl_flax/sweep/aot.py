"""Determines the cost of a sweep's points on a TPU slice with its compiler. Nothing runs, and no TPU is needed."""

import dataclasses
import logging
import os
import re
import time
from collections.abc import Callable, Sequence
from concurrent import futures
from typing import Any

import jax

from gpicl_flax.errors import UsageError
from gpicl_flax.runs.run import Run
from gpicl_flax.sweep.grid import Point
from gpicl_flax.sweep.programs import Program, programs, trace
from gpicl_flax.terminal import text_table
from gpicl_flax.training.cost import collectives, estimate, hlo, topology
from gpicl_flax.training.cost.chips import GIB, Chip
from gpicl_flax.training.cost.hbm_traffic import hbm_bytes

logger = logging.getLogger(__name__)

_AT_ONCE = 4  # programs compiled at the same time; each keeps one core busy and takes about a gigabyte
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclasses.dataclass(frozen=True)
class Slice:
    """A TPU slice that programs are compiled for.

    Attributes:
      topology: its name, such as 'v5e:4x4x1'.
      chip: its kind.
      devices: its devices as JAX sees them.
    """

    topology: str
    chip: Chip
    devices: tuple[jax.Device, ...]  # pyright: ignore[reportInvalidTypeForm]  # jaxlib has no stubs

    @classmethod
    def describe(cls, name: str) -> "Slice":
        """Returns the slice of a topology; see `topology.described_devices`."""
        chip, _ = topology.parse(name)
        return cls(name, chip, tuple(topology.described_devices(name)))

    @property
    def usable_hbm(self) -> int:
        """The bytes that a program can use on each device."""
        return self.chip.usable_hbm_bytes // self.chip.devices

    @property
    def num_chips(self) -> int:
        """The number of chips in the slice."""
        return len(self.devices) // self.chip.devices

    def __str__(self) -> str:
        devices = f", {len(self.devices)} devices" if self.chip.devices > 1 else ""
        return f"{self.topology} ({self.chip.accelerator_type(self.num_chips)}: {self.num_chips} chip(s){devices})"


@dataclasses.dataclass(frozen=True)
class Cost:
    """The compiler's account of a program on a slice, for each device unless stated otherwise.

    Attributes:
      num_members: runs that train together, as a stack.
      mesh: devices along each axis; empty where there is no mesh.
      flops: those of one step.
      counted_flops: whether these were counted as matrix products of the traced program, because it has loops.
      traffic: bytes between the chip and its memory (HBM) in one step.
      hbm_bytes: memory that the program takes, including its inputs and its code. If it does not fit: memory that it
        needs.
      hbm_limit: memory that is available.
      collectives: those of one step, in words.
      seconds: the minimum time of a step, given the peak flops and the bandwidth of the chip.
      compile_seconds: how long the compiler took, beside other compilations.
      problem: why it cannot run, or None.
    """

    num_members: int
    mesh: dict[str, int] = dataclasses.field(default_factory=dict)
    flops: float = 0.0
    counted_flops: bool = False
    traffic: float = 0.0
    hbm_bytes: int = 0
    hbm_limit: int = 0
    collectives: str = ""
    seconds: float = 0.0
    compile_seconds: float = 0.0
    problem: str | None = None

    @property
    def fits(self) -> bool:
        """Whether the memory is sufficient."""
        return self.hbm_bytes <= self.hbm_limit


def compile_all(
    points: Sequence[Point],
    runs: Sequence[Run],
    on: Slice,
    *,
    stack: int = 1,
    report: Callable[[Program, Cost, int, int], None] = lambda program, cost, number, total: None,
) -> list[tuple[Program, Cost]]:
    """Compiles the training program of every point for a slice, each program once.

    Args:
      points: the points of the sweep.
      runs: their settings.
      on: the slice.
      stack: how many points train together, if that many have the same program.
      report: called with each result, its number and the total number.
    """
    jax.config.update("jax_enable_compilation_cache", False)  # it would hide how long the compiler takes
    waiting: dict[str, tuple[Program, _Lowered | Cost]] = {}
    found = programs(points, runs)
    if found:
        logger.info("tracing %s programs, then compiling them for %s", f"{len(found):,}", on)
    for program in found:
        num_members = min(stack, len(program.points))
        try:
            lowered = _lower(program.run, on, num_members)
            key = f"{num_members} {lowered.lowered.as_text()}"
        except UsageError as error:
            lowered, key = Cost(num_members, problem=str(error)), program.points[0].run_id
        # Some differences of settings do not affect the program, such as its initial parameters.
        waiting[key] = (waiting[key][0] + program, lowered) if key in waiting else (program, lowered)
    results = []
    with futures.ThreadPoolExecutor(min(_AT_ONCE, os.cpu_count() or 1)) as pool:
        costs = pool.map(
            lambda lowered: lowered if isinstance(lowered, Cost) else _compile(lowered, on),
            [lowered for _, lowered in waiting.values()],
        )
        for number, ((program, _), cost) in enumerate(zip(waiting.values(), costs, strict=True), 1):
            results.append((program, cost))
            report(program, cost, number, len(waiting))
    return results


@dataclasses.dataclass(frozen=True)
class _Lowered:
    lowered: jax.stages.Lowered
    mesh: jax.sharding.Mesh
    num_members: int
    steps: int
    flops: int


def _lower(run: Run, on: Slice, num_members: int) -> _Lowered:
    mesh = run.check_devices(num_members, on.devices)
    traced, steps = trace(run, mesh, num_members=num_members, free_bytes=on.usable_hbm)
    return _Lowered(traced.lower(), mesh, num_members, steps, estimate.matmul_flops(traced.jaxpr))


def _compile(program: _Lowered, on: Slice) -> Cost:
    mesh = {axis: size for axis, size in program.mesh.shape.items() if size > 1}
    start = time.perf_counter()
    try:
        compiled = program.lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        seconds = time.perf_counter() - start
        cost = Cost(program.num_members, mesh, compile_seconds=seconds)
        return dataclasses.replace(cost, **_refusal(str(error)))
    seconds = time.perf_counter() - start
    text, memory, counted = compiled.as_text(), compiled.memory_analysis(), compiled.cost_analysis()
    assert text and memory and counted  # the TPU compiler returns all three
    read = hlo.HloProgram(text)
    inner_loops = read.num_loops > (program.steps > 1)
    flops = program.flops / program.steps / program.mesh.size if inner_loops else counted["flops"]
    traffic = hbm_bytes(read) / program.steps
    used = (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
        + memory.generated_code_size_in_bytes
    )
    return Cost(
        program.num_members,
        mesh,
        flops,
        inner_loops,
        traffic,
        used,
        on.usable_hbm,
        collectives.summary(collectives.collectives(read), program.steps),
        max(flops / on.chip.peak_flops, traffic / on.chip.hbm_bandwidth) * on.chip.devices,
        seconds,
    )


def _refusal(error: str) -> dict[str, Any]:
    """Returns the fields of a `Cost` that an error of the compiler contains.

    These are the memory that a program needs, the memory that is available, and the problem in words.
    """
    memory = re.findall(r"\b(\d+(?:\.\d+)?)([KMGT]?)\b", error.partition("HBM")[2])
    if "RESOURCE_EXHAUSTED" not in error or len(memory) < 2:
        return {"problem": f"does not compile: {error.strip().splitlines()[0]}"}
    needed, limit = (round(float(number) * _UNITS[unit]) for number, unit in memory[:2])
    problem = f"does not fit: {needed / GIB:.2f} of {limit / GIB:.2f} GiB"
    return {"hbm_bytes": needed, "hbm_limit": limit, "problem": problem}


def as_table(results: Sequence[tuple[Program, Cost]], on: Slice) -> str:
    """Returns a table with a line for each program, an explanation of the columns, and the points that cannot run."""
    # A program that cannot run has a line as well, so that the table accounts for every point.
    header = (
        "program",
        "points",
        "stack",
        "mesh",
        "GFLOP",
        "HBM MB",
        "memory GiB",
        "of",
        "us",
        "compile s",
        "collectives",
    )
    rows: list[tuple[str, ...]] = [header]
    for program, cost in results:
        mesh = ",".join(f"{axis}={size}" for axis, size in cost.mesh.items()) or "-"
        row = (program.name, f"{len(program.points):,}", str(cost.num_members), mesh)
        if cost.problem:
            rows.append((*row, "", "", *_memory(cost), "", f"{cost.compile_seconds:.1f}", cost.problem))
            continue
        numbers = (
            f"{cost.flops / 1e9:,.2f}{'*' if cost.counted_flops else ' '}",
            f"{cost.traffic / 1e6:,.1f}",
            *_memory(cost),
            f"{cost.seconds * 1e6:,.0f}",
            f"{cost.compile_seconds:.1f}",
        )
        rows.append((*row, *numbers, cost.collectives))
    lines = [
        f"One training step on each device of {on}, by the TPU compiler (jax {jax.__version__}); nothing was run.",
        text_table.render(rows, right=(1, 2, *range(4, 10))),
        "",
        "GFLOP: by the compiler, which counts the body of a loop once; with *, which marks programs with loops: matrix "
        "products",
        "alone, those in loops every time, over the devices. HBM MB: to and from the memory, arrays without padding. "
        "us: what a",
        "step takes at least, by the chip's peak of bfloat16 products and its bandwidth. Stacks: a step of all their "
        "members.",
    ]
    return "\n".join([*lines, *_problems(results)])


def _memory(cost: Cost) -> tuple[str, str]:
    return (f"{cost.hbm_bytes / GIB:.3f}", f"{cost.hbm_limit / GIB:.2f}") if cost.hbm_limit else ("", "")


def _problems(results: Sequence[tuple[Program, Cost]]) -> list[str]:
    bad = [(program, cost) for program, cost in results if cost.problem]
    total = sum(len(program.points) for program, _ in results)
    if not bad:
        return [f"All {total:,} points compile and fit."]
    lines = [f"{sum(len(program.points) for program, _ in bad):,} of {total:,} points cannot run so:"]
    for program, cost in bad:
        over = "" if cost.fits else f", {(cost.hbm_bytes - cost.hbm_limit) / GIB:.2f} GiB too much"
        lines.append(f"  {program.name}: {cost.problem}{over}")
        lines += [f"    {point.run_id}" for point in program.points]
    return lines


def as_dict(program: Program, cost: Cost) -> dict:
    """Returns the cost, and the run ids of its points, for JSON."""
    return {"program": program.name, "points": [p.run_id for p in program.points]} | dataclasses.asdict(cost)
