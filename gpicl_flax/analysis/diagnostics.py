"""The mechanics of one run over its steps: losses, what its heads compare and attend to, gradients by part."""

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gpicl_flax.analysis.chart import BLACK, COLOURS, DASHES, Chart
from gpicl_flax.analysis.one_run import OneRun
from gpicl_flax.records import plateau

_ATTENTION = {
    "matching_score": "matching score\nof queries and keys",
    "same_class_attention": "attention on\nexamples of the class",
    "previous_token_attention": "attention on the\nprevious token",
}
_WIDTHS = (1.6, 1.0, 0.6)


def draw(run: OneRun) -> Chart:
    """A panel for each kind of diagnostics that the run has, below each other, over the training step."""
    name, title = f"diagnostics_{run.run_id}", f"Diagnostics of {run.run_id}"
    if not run.diagnostics:
        return Chart(name, title, f"{run.run_id} has no diagnostics.")
    table = numbers(run)
    panels: list[tuple[Callable, str]] = [(_draw_losses, "loss")]
    panels += [(_draw_heads, kind) for kind in _ATTENTION if (table["quantity"] == kind).any()]
    if (table["quantity"] == "grad_norms").any():
        panels.append((_draw_gradients, "grad_norms"))
    heights = [1.3 if kind in ("loss", "grad_norms") else 1 for _, kind in panels]
    figure = Figure(figsize=(9.5, 1.75 * sum(heights) + 0.7), layout="constrained")
    grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights, sharex=True)[:, 0]
    drops = _drops(run, table)
    for axes, (draw_panel, kind) in zip(grid, panels, strict=True):
        draw_panel(axes, run, table[table["quantity"] == kind])
        for (rule, step), dash in zip(drops.items(), ("--", ":"), strict=False):
            axes.axvline(step, color=BLACK, linestyle=dash, linewidth=1, zorder=1, label=f"plateau left, by {rule}")
        axes.grid(alpha=0.3)
        axes.margins(x=0.01)
        if kind == "loss":
            axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.03), frameon=False, fontsize="small")
    grid[-1].set_xlabel("training step")
    figure.align_ylabels()
    return Chart(name, title, _caption(drops), figure, table)


def numbers(run: OneRun) -> pd.DataFrame:
    """What was diagnosed, a row a number: step, quantity, part (a head as 'layer 1, head 2', or a part of the model), value."""
    rows = []
    for step, values in run.diagnostics.items():
        for quantity, value in values.items():
            rows += [(step, quantity, part, number) for part, number in _parts(value)]
    table = pd.DataFrame(rows, columns=["step", "quantity", "part", "value"])
    table["value"] = pd.to_numeric(table["value"], errors="coerce")
    return table


def _parts(value) -> list[tuple[str, float]]:
    if isinstance(value, dict):
        return list(value.items())
    if isinstance(value, list):
        heads = [(layer, head, x) for layer, row in enumerate(value, 1) for head, x in enumerate(row, 1)]
        return [(f"layer {layer}, head {head}", x) for layer, head, x in heads]
    return [("", value)]


def _drops(run: OneRun, table: pd.DataFrame) -> dict[str, int]:
    """The steps at which the plateau was left, by rule; a run still on it has none."""
    classes = run.facts.get("num_classes")
    if not isinstance(classes, int):
        return {}
    ema, unseen = run.metrics["loss_ema"], table[table["quantity"] == "unseen_loss"]
    left = {
        "training loss": plateau.left_at(ema.index.tolist(), ema.tolist(), classes),
        "loss on unseen tasks": plateau.left_by_unseen_tasks_at(
            unseen["step"].tolist(), unseen["value"].tolist(), classes
        ),
    }
    return {rule: step for rule, step in left.items() if step is not None}


def _draw_losses(axes: Axes, run: OneRun, _: pd.DataFrame) -> None:
    metrics, unseen = run.metrics, numbers(run).query("quantity == 'unseen_loss'")
    axes.plot(metrics.index, metrics["loss"], color=COLOURS[5], alpha=0.5, linewidth=0.8)
    axes.plot(metrics.index, metrics["loss_ema"], color=COLOURS[0], label="training (average)")
    axes.plot(unseen["step"], unseen["value"], ".-", color=COLOURS[1], markersize=3, label="unseen tasks")
    if isinstance(run.facts.get("num_classes"), int):
        axes.axhline(math.log(run.facts["num_classes"]), color="0.5", linestyle=":", label="chance")
    axes.set_ylabel("cross entropy\n(nats)")


def _draw_heads(axes: Axes, run: OneRun, table: pd.DataFrame) -> None:
    layers = list(dict.fromkeys(part.partition(",")[0] for part in table["part"]))
    for part, values in table.groupby("part", sort=False):
        layer, _, head = part.partition(", head ")
        place = layers.index(layer)
        axes.plot(
            values["step"],
            values["value"],
            color=COLOURS[place % len(COLOURS)],
            linestyle=DASHES[place // len(COLOURS) % len(DASHES)],
            linewidth=1,
            alpha=0.8,
            label=f"{layer}, head {head}",
        )
    kind = table["quantity"].iloc[0]
    handles = [
        Line2D([], [], color=COLOURS[i % len(COLOURS)], linestyle=DASHES[i // len(COLOURS) % len(DASHES)], label=layer)
        for i, layer in enumerate(layers)
    ]
    if kind == "same_class_attention":
        uniform = [values.get("same_class_uniform") for values in run.diagnostics.values()]
        uniform = [value for value in uniform if isinstance(value, int | float)]
        if uniform:
            handles.append(axes.axhline(np.mean(uniform), color="0.3", linestyle=":", label="uniform attention"))
    axes.set_ylabel(_ATTENTION[kind])
    axes.set_ylim(-0.03, 1.03)
    columns = 1 if len(handles) < 7 else 2
    axes.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1.05), frameon=False, fontsize="small", ncols=columns
    )


def _draw_gradients(axes: Axes, run: OneRun, table: pd.DataFrame) -> None:
    names = list(dict.fromkeys(table["part"]))
    blocks = list(dict.fromkeys(name.rpartition("/")[0] for name in names))
    parts = list(dict.fromkeys(name.rpartition("/")[2] for name in names))
    blocks = [block for block in blocks if block]
    for name, values in table.groupby("part", sort=False):
        block, _, part = name.rpartition("/")
        axes.plot(
            values["step"],
            values["value"],
            color=(*COLOURS, BLACK, "0.55")[parts.index(part) % (len(COLOURS) + 2)],
            linestyle=DASHES[blocks.index(block) % len(DASHES)] if block else "-",
            linewidth=_WIDTHS[blocks.index(block) // len(DASHES) % len(_WIDTHS)] if block else _WIDTHS[0],
            label=name,
        )
    colours = (*COLOURS, BLACK, "0.55")
    handles = [Line2D([], [], color=colours[i % len(colours)], label=part) for i, part in enumerate(parts)]
    handles += [
        Line2D([], [], color="0.3", linestyle=DASHES[i % len(DASHES)], label=block.replace("_", " "))
        for i, block in enumerate(blocks)
        if len(blocks) > 1
    ]
    axes.set_yscale("log")
    axes.set_ylabel("gradient norm\n(log scale)")
    axes.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(1.01, 1.05),
        frameon=False,
        fontsize="small",
        ncols=1 if len(handles) < 8 else 2,
    )


def _caption(drops: dict[str, int]) -> str:
    marks = "; ".join(f"by {rule} at step {step:,}" for rule, step in drops.items())
    return (
        "One run over its training steps. The vertical lines mark where it left its plateau: "
        + (marks or "it has not")
        + ". Scores and attention are between 0 and 1, a line a head, coloured by layer; the dotted line is the attention that "
        "examples of the same class would get if all got the same. Gradient norms are of the diagnostics' batch, by the part "
        "of the model."
    )
