"""How fast activations grow with width or depth: slopes of the rows of a coordinate check, and the verdict on them."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd

from gpicl_flax.analysis.data.frames import group_by, row_with_highest
from gpicl_flax.runs.coordinate_check import Row
from gpicl_flax.terminal import text_table

# Slopes of finite widths are not exactly zero. In the standard parametrisation they are about 1, or 0.7 where only a
# part of a layer's input is correlated.
TOLERANCE = 0.35


class Verdict(NamedTuple):
    """Whether a parametrisation is flat: whether changes of all layers are of one size at all widths, or depths.

    Attributes:
      parametrization, axis: the cell that is judged.
      flat: whether no layer's slope of the change, in the mean over steps, exceeds the tolerance, up or down. Single
        steps are noisy: changes of few logits cross zero.
      layer, slope: the largest of these slopes.
      tolerance: what it is compared with.
    """

    parametrization: str
    axis: str
    flat: bool
    layer: str
    slope: float
    tolerance: float

    @property
    def words(self) -> str:
        """Returns the verdict as a sentence."""
        found = f"the largest slope of a change is {self.slope:+.2f} ({self.layer})"
        kind = "flat" if self.flat else "not flat"
        return f"{self.parametrization}: {kind} in {self.axis}: {found}, the tolerance {self.tolerance:g}"


def table(rows: Iterable[Row]) -> pd.DataFrame:
    """Returns the rows of a check with a column for each field, sizes and changes as geometric means over seeds."""
    found = pd.DataFrame(list(rows), columns=list(Row._fields))
    keys = ["parametrization", "axis", "value", "step", "layer"]
    logs = found.assign(**{name: np.log(found[name].where(found[name] > 0)) for name in ("size", "change")})
    means = logs.groupby(keys, sort=False)[["size", "change"]].mean().reset_index()
    return means.assign(size=np.exp(means["size"]), change=np.exp(means["change"]))


def slopes(found: pd.DataFrame) -> pd.DataFrame:
    """Returns the slopes of log size, and of log change, against log width or depth.

    Args:
      found: a `table`.

    Returns:
      A row for each parametrization, axis, layer and step, with the columns size and change; NaN for a layer that is
      zero, or has not changed, at some width.
    """
    keys = ["parametrization", "axis", "layer", "step"]
    parts = []
    for key, same in group_by(found, keys, sort=False):
        logs = np.log(same[["size", "change"]].to_numpy(float))
        slope = np.polyfit(np.log(same["value"].to_numpy(float)), logs, 1)[0]
        parts.append((*key, *slope))
    return pd.DataFrame(parts, columns=[*keys, "size", "change"])


def verdicts(found: pd.DataFrame, tolerance: float = TOLERANCE) -> list[Verdict]:
    """Returns the verdict on each parametrisation and axis of `slopes`."""
    judged = []
    for (parametrization, axis), same in group_by(
        found.dropna(subset=["change"]), ["parametrization", "axis"], sort=False
    ):
        means = same.groupby("layer", sort=False)["change"].mean().reset_index()
        worst = row_with_highest(means.assign(steep=means["change"].abs()), "steep")
        flat = bool(abs(worst["change"]) <= tolerance)
        judged.append(Verdict(parametrization, axis, flat, str(worst["layer"]), float(worst["change"]), tolerance))
    return judged


def as_text(found: pd.DataFrame, rates: pd.DataFrame) -> str:
    """Returns a text table for each parametrisation and axis: sizes after the last step, and slopes of changes."""
    tables = []
    for cell, same in group_by(found, ["parametrization", "axis"], sort=False):
        own = rates[(rates["parametrization"] == cell[0]) & (rates["axis"] == cell[1])]
        sizes = same[same["step"] == same["step"].max()].pivot(index="layer", columns="value", values="size")
        changes = own.pivot(index="layer", columns="step", values="change")
        heads = [f"{cell[1]} {value:,}" for value in sizes.columns] + [f"step {step}" for step in changes.columns]
        rows = [(f"{cell[0]}: sizes after {same['step'].max()} steps, slopes of changes", *heads)]
        for layer in dict.fromkeys(same["layer"]):
            numbers = [f"{value:.3g}" for value in sizes.loc[layer]] + [f"{rate:+.2f}" for rate in changes.loc[layer]]
            rows.append((str(layer), *numbers))
        tables.append(text_table.render(rows, right=range(1, len(rows[0]))))
    return "\n\n".join(tables)
