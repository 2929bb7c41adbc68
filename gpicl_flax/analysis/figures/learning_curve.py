"""The picture of one run: its learning within a sequence, and its loss leaving the plateau."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gpicl_flax.analysis.data.one_run import OneRun
from gpicl_flax.analysis.figures import registry
from gpicl_flax.analysis.figures.chart import COLOURS, Chart
from gpicl_flax.records import json_lines, plateau
from gpicl_flax.records.run_folder import RunFolder

_LINES = {"seen": "--", "unseen": "-"}
_DRAWN_FROM = {"model", "steps", "num_classes", "base_dataset"}


def draw(folder: RunFolder, evaluation: dict[str, Any] | None) -> Figure:
    """Draws meta-test accuracy against examples seen, with 95% intervals (left), and the training loss (right).

    For a run of 0 steps the right part is absent.
    """
    run_info = folder.read_run_info(*_DRAWN_FROM)
    rows = json_lines.read(folder.metrics) if run_info["steps"] else []
    log = {name: [row.get(name, math.nan) for row in rows] for name in ("step", "loss", "loss_ema")}
    return _figure(run_info, evaluation, log["step"], log["loss"], log["loss_ema"])


def _figure(
    run_info: dict[str, Any],
    evaluation: dict[str, Any] | None,
    steps: Sequence[int],
    losses: Sequence[float],
    emas: Sequence[float],
) -> Figure:
    panels = 1
    if run_info["steps"]:
        panels, title = 2, f"{run_info['model']} meta-trained on tasks made from {run_info['base_dataset']['name']}"
    else:
        title = f"{run_info['model']}, not meta-trained"
    figure = Figure(figsize=(5.5 * panels, 4.2), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)
    _draw_accuracy(axes[0, 0], evaluation, run_info["num_classes"])
    if run_info["steps"]:
        _draw_loss(axes[0, 1], steps, losses, emas, run_info["num_classes"])
    figure.suptitle(title)
    return figure


def chart_of_evaluation(evaluation: dict[str, Any], *, model: str, num_classes: int) -> Chart:
    """Returns the curves of a meta-test alone, of a model of that name."""
    figure = Figure(figsize=(6.5, 4.2), layout="constrained")
    _draw_accuracy(figure.subplots(), evaluation, num_classes)
    caption = "Accuracy on sequences of test examples against the examples seen before, with Wilson's 95% intervals."
    return Chart("meta_test", f"Meta-test of {model}", caption, figure)


def save(folder: RunFolder, evaluation: dict[str, Any] | None, path: epath.Path) -> None:
    """Draws the picture of a run and a meta-test of it into a PNG file."""
    figure = draw(folder, evaluation)
    with path.open("wb") as file:
        figure.savefig(file, dpi=150)


@registry.register_run_figure(1)
def chart(run: OneRun) -> Chart:
    """Returns the picture of a run and its last meta-test, for a report."""
    name, title = "learning_curve", f"Learning curve of {run.run_id}"
    if not _DRAWN_FROM <= run.run_info.keys():
        return Chart(name, title, f"Not drawn: {run.folder.run_info.name} does not say what the run is.")
    evaluation = run.evaluations[-1] if run.evaluations else None
    log = {name: run.metrics[name].tolist() for name in ("loss", "loss_ema")}
    figure = _figure(run.run_info, evaluation, run.metrics.index.tolist(), log["loss"], log["loss_ema"])
    caption = (
        "Left: accuracy on sequences of test examples against the examples seen before, with Wilson's 95% intervals"
        + (f", after step {run.evaluations[-1]['step']:,}" if run.evaluations else "; there is no evaluation yet")
        + (
            ". Right: the training loss and its average, by which the plateau is told."
            if run.run_info["steps"]
            else "."
        )
    )
    return Chart(name, title, caption, figure)


def _draw_accuracy(axes, evaluation, num_classes: int) -> None:
    datasets = []
    for curve in evaluation["curves"] if evaluation else []:
        if curve["base_dataset"] not in datasets:
            datasets.append(curve["base_dataset"])
        # With one base dataset, colours show seen and unseen tasks. With several, colours show these, and line styles
        # the tasks.
        colour = COLOURS[datasets.index(curve["base_dataset"]) % len(COLOURS)]
        if len({c["base_dataset"] for c in evaluation["curves"]}) == 1:
            colour = COLOURS[curve["tasks"] == "unseen"]
        seen = np.arange(len(curve["accuracy"]))
        axes.plot(
            seen,
            curve["accuracy"],
            _LINES[curve["tasks"]],
            color=colour,
            label=f"{curve['tasks']} tasks, {curve['base_dataset']}",
        )
        axes.fill_between(seen, curve["accuracy_low"], curve["accuracy_high"], color=colour, alpha=0.2, linewidth=0)
    axes.axhline(1 / num_classes, color="0.5", linestyle=":", label="chance")
    axes.set(xlabel="examples seen in the sequence", ylabel="meta-test accuracy", ylim=(0, 1))
    axes.set_title("learning within a sequence (95% intervals)", fontsize="medium")
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)


def _draw_loss(
    axes: Axes, steps: Sequence[int], losses: Sequence[float], emas: Sequence[float], num_classes: int
) -> None:
    axes.plot(steps, losses, color=COLOURS[5], alpha=0.6, label="training loss")
    axes.plot(steps, emas, color=COLOURS[0], label=f"average over about {plateau.EMA_STEPS} steps")
    axes.axhline(math.log(num_classes), color="0.5", linestyle=":", label=f"chance, ln {num_classes}")
    left = plateau.plateau_exit_step(steps, emas, num_classes)
    if left is not None:
        axes.axvline(left, color=COLOURS[1], linestyle="--", label=f"plateau left by step {left:,}")
    axes.set(xlabel="training step", ylabel="cross entropy (nats)")
    axes.set_title("leaving the plateau" if left is not None else "still on the plateau", fontsize="medium")
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
