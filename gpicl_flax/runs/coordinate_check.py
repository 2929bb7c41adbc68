"""The coordinate check of a run: the sizes of its activations at several widths, or depths, in its first steps."""

import dataclasses
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from gpicl_flax.errors import UsageError
from gpicl_flax.models import SequenceModel, scaling
from gpicl_flax.runs.run import Run
from gpicl_flax.training.probes import coordinate_check

WIDTH, DEPTH = AXES = ("width", "depth")
AT_STEPS = (1, 2, 4, 8)
MULTIPLES = (1, 2, 4, 8)  # of the base width, if no widths are named


class Row(NamedTuple):
    """The activations of a layer of one run, see `coordinate_check.Sizes`.

    Attributes:
      parametrization: 'standard' or 'mup'.
      axis, value: what is varied, 'width' or 'depth', and its value.
      step, seed: the number of steps, and the seed of the run.
      layer: its name; with depth, of blocks only the last one's.
      size, change: root mean squares.
    """

    parametrization: str
    axis: str
    value: int
    step: int
    seed: int
    layer: str
    size: float
    change: float


def check(
    run: Run,
    *,
    axis: str = WIDTH,
    values: Sequence[int] = (),
    parametrizations: Sequence[str] = scaling.PARAMETRIZATIONS,
    seeds: Sequence[int] = (0, 1),
    at_steps: Sequence[int] = AT_STEPS,
) -> Iterator[Row]:
    """Trains the run's model at several sizes for a few steps each, and yields how large activations are.

    The run's own optimiser and tasks are used. The base of 'mup' is the model's base size where it has one, and else
    its own size.

    Args:
      run: the run.
      axis: 'width' or 'depth'.
      values: the widths or depths; none: 1, 2, 4 and 8 times the base.
      parametrizations: 'standard', 'mup' or both.
      seeds: those of the runs at each size.
      at_steps: the numbers of steps after which activations are measured.

    Raises:
      UsageError: the model has no such size, its optimiser has no rules, or the data are missing.
    """
    base = base_size(run.model, axis)
    values = values or [base * multiple for multiple in MULTIPLES]
    if len(set(values)) < 2:
        raise UsageError(f"a slope needs at least two {axis}s, not {', '.join(map(str, values))}")
    sized = [
        (name, value, dataclasses.replace(run, model=_at(run.model, name, axis, base, value)))
        for name in parametrizations
        for value in values
    ]
    dataset = run.tasks.load(run.tasks.data_name)
    drawing = run.tasks.drawing(dataset)
    for name, value, own in sized:
        mesh = own.check_devices(len(seeds))
        with jax.set_mesh(mesh), own.precision():
            found = coordinate_check.record(
                own.model,
                own.optimizer,
                own.task_batches(drawing, mesh, len(seeds)),
                dataset,
                seeds=seeds,
                at_steps=at_steps,
            )
        for step, sizes in found.items():
            size, change = (_of_last_block(each) if axis == DEPTH else each for each in sizes)
            for layer in size:
                for index, seed in enumerate(seeds):
                    measured = float(size[layer][index]), float(change[layer][index])
                    yield Row(name, axis, value, step, seed, layer, *measured)


def base_size(model: SequenceModel, axis: str) -> int:
    """Returns the base width or depth of a model; raises UsageError if it has none that can grow."""
    name, depth = type(model).__name__, getattr(model, "num_layers", None)
    if not model.growing:
        raise UsageError(f"{name} says of no width how it grows")
    if axis == WIDTH:
        return model.base_width or model.width
    if depth is None or not hasattr(model, "base_depth"):
        raise UsageError(f"{name} has no residual blocks, so there is no rule for its depth")
    return getattr(model, "base_depth", None) or depth


def _at(model: SequenceModel, parametrization: str, axis: str, base: int, value: int) -> SequenceModel:
    settings: dict[str, Any] = {"parametrization": parametrization}
    if axis == WIDTH:
        return model.clone(**settings, base_width=base, **model.grown(value))
    # The base of the width stays, or is the model's own width.
    return model.clone(**settings, base_width=model.base_width or model.width, base_depth=base, num_layers=value)


def _of_last_block(sizes: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the sizes of what models of all depths have: layers of the last block, and those outside of blocks."""
    numbers = [int(found[1]) for layer in sizes if (found := re.match(r"block_(\d+)", layer))]
    last = f"block_{max(numbers)}"
    kept = [layer for layer in sizes if not layer.startswith("block_") or layer.split("/")[0] == last]
    return {layer.replace(last, "last block"): sizes[layer] for layer in kept}
