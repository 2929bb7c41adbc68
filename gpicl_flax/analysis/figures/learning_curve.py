"""The picture of one run: its learning within a sequence, and its loss leaving the plateau."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gpicl_flax.analysis.data.one_run import OneRun
from gpicl_flax.analysis.figures import registry
from gpicl_flax.analysis.figures.chart import COLOURS, Chart, loss_in_words
from gpicl_flax.records import json_lines, plateau
from gpicl_flax.records.criteria import Criteria
from gpicl_flax.records.run_folder import RunFolder

_LINES = {"seen": "--", "unseen": "-"}
_DRAWN_FROM = {"model", "steps", "base_dataset"}

_INTERVALS = {"accuracy": "Wilson's", "loss": "Student's", "squared_error": "Student's"}


def draw(folder: RunFolder, evaluation: dict[str, Any] | None) -> Figure:
    """Draws meta-test accuracy against examples seen, with 95% intervals (left), and the training loss (right).

    Where targets are numbers, it draws the squared error in the place of the accuracy.

    References are beside the curve of unseen tasks where the meta-test measured them.

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
        made_from = "of " if "family" in run_info or "targets" in run_info else "made from "
        panels, title = 2, f"{run_info['model']} meta-trained on tasks {made_from}{run_info['base_dataset']['name']}"
    else:
        title = f"{run_info['model']}, not meta-trained"
    figure = Figure(figsize=(5.5 * panels, 4.2), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)
    criteria = Criteria.required(run_info)
    _draw_score(axes[0, 0], evaluation, criteria)
    if run_info["steps"]:
        _draw_loss(axes[0, 1], steps, losses, emas, criteria)
    figure.suptitle(title)
    return figure


def chart_of_evaluation(evaluation: dict[str, Any], *, model: str, num_classes: int) -> Chart:
    """Returns the curves of a meta-test alone, of a model of that name."""
    figure = Figure(figsize=(6.5, 4.2), layout="constrained")
    _draw_score(figure.subplots(), evaluation, Criteria.required({"num_classes": num_classes}))
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
    criteria = Criteria.from_run_info(run.run_info)
    if not _DRAWN_FROM <= run.run_info.keys() or criteria is None:
        return Chart(name, title, f"Not drawn: {run.folder.run_info.name} does not say what the run is.")
    evaluation = run.evaluations[-1] if run.evaluations else None
    log = {name: run.metrics[name].tolist() for name in ("loss", "loss_ema")}
    figure = _figure(run.run_info, evaluation, run.metrics.index.tolist(), log["loss"], log["loss_ema"])
    caption = (
        f"Left: {_score_in_words(criteria)} against the examples seen before, with {_INTERVALS[criteria.score]} 95% "
        "intervals"
        + (", and references on the same unseen tasks" if _has_references(evaluation) else "")
        + (f", after step {run.evaluations[-1]['step']:,}" if run.evaluations else "; there is no evaluation yet")
        + (
            ". Right: the training loss and its average, by which the plateau is told."
            if run.run_info["steps"]
            else "."
        )
    )
    return Chart(name, title, caption, figure)


def _score_in_words(criteria: Criteria) -> str:
    return (
        "accuracy on sequences of test examples" if criteria.score == "accuracy" else "squared error on new sequences"
    )


def _draw_score(axes, evaluation, criteria: Criteria) -> None:
    score, name = criteria.score, "accuracy" if criteria.score == "accuracy" else "squared error"
    datasets = []
    for curve in evaluation["curves"] if evaluation else []:
        if curve["base_dataset"] not in datasets:
            datasets.append(curve["base_dataset"])
        # With one base dataset, colours show seen and unseen tasks. With several, colours show these, and line styles
        # the tasks.
        colour = COLOURS[datasets.index(curve["base_dataset"]) % len(COLOURS)]
        if len({c["base_dataset"] for c in evaluation["curves"]}) == 1:
            colour = COLOURS[curve["tasks"] == "unseen"]
        seen = curve.get("positions") or np.arange(len(curve[score]))
        axes.plot(
            seen,
            curve[score],
            _LINES[curve["tasks"]],
            color=colour,
            label=f"{curve['tasks']} tasks, {curve['base_dataset']}",
        )
        ends = curve[f"{score}_low"], curve[f"{score}_high"]
        axes.fill_between(seen, *ends, color=colour, alpha=0.2, linewidth=0)
        if curve["tasks"] == "unseen":
            _draw_references(axes, curve, score, colour if len(datasets) > 1 else "0.2")
    axes.axhline(criteria.chance_score, color="0.5", linestyle=":", label="chance")
    axes.set(xlabel="examples seen in the sequence", ylabel=f"meta-test {name}")
    axes.set_ylim(0, 1 if score == "accuracy" else None)
    axes.set_title("learning within a sequence (95% intervals)", fontsize="medium")
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)


def _has_references(evaluation: dict[str, Any] | None) -> bool:
    return any(curve.get("references") for curve in evaluation["curves"]) if evaluation else False


def _draw_references(axes: Axes, curve: dict[str, Any], score: str, colour: str) -> None:
    """Draws the references on the same unseen tasks, thinner than the model and each with a marker of its own.

    Their intervals are drawn where they have them.
    """
    with_score = [(name, own) for name, own in curve.get("references", {}).items() if score in own]
    for marker, (name, own) in zip(itertools.cycle("os^vDxP*"), with_score, strict=False):
        seen = own.get("positions") or curve.get("positions") or np.arange(len(own[score]))
        every = max(1, len(seen) // 8)
        axes.plot(
            seen, own[score], color=colour, linewidth=0.8, marker=marker, markersize=4, markevery=every, label=name
        )
        if f"{score}_low" in own:
            axes.fill_between(seen, own[f"{score}_low"], own[f"{score}_high"], color=colour, alpha=0.12, linewidth=0)


def _draw_loss(
    axes: Axes, steps: Sequence[int], losses: Sequence[float], emas: Sequence[float], criteria: Criteria
) -> None:
    axes.plot(steps, losses, color=COLOURS[5], alpha=0.6, label="training loss")
    axes.plot(steps, emas, color=COLOURS[0], label=f"average over about {plateau.EMA_STEPS} steps")
    # A mixture of families has no one number of classes.
    has_classes = criteria.score == "accuracy" and math.isclose(criteria.chance_loss, -math.log(criteria.chance_score))
    classes = f", ln {round(1 / criteria.chance_score)}" if has_classes else ""
    axes.axhline(criteria.chance_loss, color="0.5", linestyle=":", label=f"chance{classes}")
    left = plateau.plateau_exit_step(steps, emas, criteria.threshold)
    if left is not None:
        axes.axvline(left, color=COLOURS[1], linestyle="--", label=f"plateau left by step {left:,}")
    axes.set(xlabel="training step", ylabel=loss_in_words(criteria))
    axes.set_title("leaving the plateau" if left is not None else "still on the plateau", fontsize="medium")
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
