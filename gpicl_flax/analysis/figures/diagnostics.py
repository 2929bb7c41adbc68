"""The mechanics of one run over its steps: losses, comparisons and attention of its heads, gradients by part."""

import math
from collections.abc import Iterable, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import StrMethodFormatter

from gpicl_flax.analysis.data.frames import group_by
from gpicl_flax.analysis.data.one_run import OneRun
from gpicl_flax.analysis.figures import registry
from gpicl_flax.analysis.figures.chart import BLACK, COLOURS, DASHES, Chart, loss_in_words
from gpicl_flax.records import plateau
from gpicl_flax.records.criteria import Criteria

_HEADS = {
    "matching_score": "matching score of\nqueries and keys",
    "same_class_attention": "attention on\nexamples of the class",
    "previous_token_attention": "attention on the\nprevious token",
}
_PARTS = (*COLOURS, BLACK, "0.6")


@registry.register_run_figure(2)
def draw(run: OneRun) -> Chart:
    """Draws a panel for each kind of diagnostics that the run has, below each other, over the training step."""
    name, title = f"diagnostics_{run.run_id}", f"Diagnostics of {run.run_id}"
    if not run.diagnostics:
        return Chart(name, title, f"{run.run_id} has no diagnostics.")
    table = numbers(run)
    heads = [kind for kind in _HEADS if (table["quantity"] == kind).any()]
    gradients = table[table["quantity"] == "grad_norms"]
    blocks = list(dict.fromkeys(map(_block, gradients["part"])))
    heights = [1.4] + [1.0] * (len(heads) + len(blocks))
    figure = Figure(figsize=(9.5, 1.75 * sum(heights) + 0.5), layout="constrained")
    grid = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights, sharex=True)[:, 0]
    _draw_losses(grid[0], run, table)
    for axes, kind in zip(grid[1:], heads, strict=False):
        _draw_heads(axes, kind, table)
    for axes, block in zip(grid[1 + len(heads) :], blocks, strict=True):
        if axes is not grid[1 + len(heads)]:
            axes.sharey(grid[1 + len(heads)])
        in_blocks = gradients["part"].map(_block) != ""
        parts = gradients["part"][in_blocks if block else ~in_blocks].map(_part).unique().tolist()
        _draw_gradients(axes, block, gradients[gradients["part"].map(_block) == block], parts)
    marked = drops(run, table)
    mark_drops(grid, marked)
    for axes in grid:
        axes.grid(alpha=0.3)
        axes.margins(x=0.01)
    _legend(grid[0], grid[0].get_legend_handles_labels()[0])
    grid[-1].set_xlabel("training step")
    grid[-1].xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    figure.align_ylabels()
    return Chart(name, title, _caption(marked), figure, table)


def numbers(run: OneRun) -> pd.DataFrame:
    """Returns a row for each number that was diagnosed: step, quantity, part and value.

    A part is a head, such as 'layer 0, head 1', or a part of the model.
    """
    rows = [
        (step, quantity, part, number)
        for step, values in run.diagnostics.items()
        for quantity, value in values.items()
        for part, number in _flat(value)
    ]
    table = pd.DataFrame(rows, columns=["step", "quantity", "part", "value"])
    table["value"] = pd.to_numeric(table["value"], errors="coerce")
    return table


def _flat(value) -> list[tuple[str, float]]:
    if isinstance(value, dict):
        return list(value.items())
    if isinstance(value, list):
        heads = [(layer, head, x) for layer, row in enumerate(value) for head, x in enumerate(row)]
        return [(f"layer {layer}, head {head}", x) for layer, head, x in heads]
    return [("", value)]


def drops(run: OneRun, table: pd.DataFrame) -> dict[str, int]:
    """Returns the step at which the plateau was left, by rule, given the run's `numbers`; empty if it was not left."""
    criteria = Criteria.from_run_info(run.run_info)
    if criteria is None:
        return {}
    ema, unseen = run.metrics["loss_ema"], table[table["quantity"] == "unseen_loss"]
    left = {
        "training loss": plateau.plateau_exit_step(ema.index.tolist(), ema.tolist(), criteria.threshold),
        "loss on unseen tasks": plateau.unseen_plateau_exit_step(
            unseen["step"].tolist(), unseen["value"].tolist(), criteria.threshold
        ),
    }
    return {rule: step for rule, step in left.items() if step is not None}


def mark_drops(grid: Iterable[Axes], marked: dict[str, int]) -> None:
    """Draws a vertical line at each drop."""
    for axes in grid:
        for (rule, step), dash in zip(marked.items(), ("--", ":"), strict=False):
            axes.axvline(step, color=BLACK, linestyle=dash, linewidth=1, zorder=1, label=f"plateau left, by {rule}")


def drops_in_words(marked: dict[str, int]) -> str:
    """Returns a sentence about the drops."""
    marks = " and ".join(f"by its {rule} at step {step:,}" for rule, step in marked.items())
    return f"The run has {f'left its plateau {marks}' if marks else 'not left its plateau'}."


def _draw_losses(axes: Axes, run: OneRun, table: pd.DataFrame) -> None:
    metrics, unseen = run.metrics, table[table["quantity"] == "unseen_loss"]
    axes.plot(metrics.index, metrics["loss"], color=COLOURS[5], alpha=0.5, linewidth=0.8, label="training")
    axes.plot(metrics.index, metrics["loss_ema"], color=COLOURS[0], label="training, average")
    axes.plot(unseen["step"], unseen["value"], color=COLOURS[1], label="unseen tasks")
    criteria = Criteria.from_run_info(run.run_info)
    if criteria is not None:
        axes.axhline(criteria.chance_loss, color="0.5", linestyle="-.", label="chance")
    axes.set_ylabel("\n(".join(loss_in_words(criteria).split(" (")))


def _draw_heads(axes: Axes, kind: str, table: pd.DataFrame) -> None:
    """Draws a line for each head, coloured by layer."""
    rows, handles = table[table["quantity"] == kind], {}
    for part, values in group_by(rows, "part", sort=False):
        layer = part.partition(",")[0]
        handles.setdefault(layer, Line2D([], [], label=layer, **_look(len(handles), COLOURS)))
        look = _look(list(handles).index(layer), COLOURS)
        axes.plot(values["step"], values["value"], linewidth=1, alpha=0.8, label=part, **look)
    uniform = table[table["quantity"] == f"{kind.removesuffix('_attention')}_uniform"]["value"].mean()
    if not math.isnan(uniform):
        handles["uniform"] = axes.axhline(uniform, color="0.2", linestyle=":", label="uniform attention")
    axes.set_ylabel(_HEADS[kind])
    axes.set_ylim(-0.03, 1.03)
    _legend(axes, list(handles.values()))


def _draw_gradients(axes: Axes, block: str, rows: pd.DataFrame, parts: list[str]) -> None:
    """Draws a line for each part of the block. A part has the same style in all blocks."""
    for name, values in group_by(rows, "part", sort=False):
        part = _part(name)
        look = _look(parts.index(part), _PARTS)
        axes.plot(values["step"], values["value"], linewidth=1.2, label=part.replace("_", " "), **look)
    axes.set_yscale("log")
    axes.set_ylabel(f"gradient norm\n{block.replace('_', ' ') or 'other parts'} (log)")
    _legend(axes, axes.get_lines())


def _block(name: str) -> str:
    """Returns 'block_0' for 'block_0/query'; '' for a part that is in no block."""
    return name.rpartition("/")[0].partition("/")[0]


def _part(name: str) -> str:
    """Returns 'query' for 'block_0/query'."""
    return name.partition("/")[2] or name


def _look(index: int, colours: Sequence[str]) -> dict:
    return {"color": colours[index % len(colours)], "linestyle": DASHES[index // len(colours) % len(DASHES)]}


def _legend(axes: Axes, handles: list[Line2D]) -> None:
    """Draws a legend on the right of the axes, no higher than they are."""
    columns = -(-len(handles) // 7)
    axes.legend(
        handles=handles, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize="small", ncols=columns
    )


def _caption(marked: dict[str, int]) -> str:
    return (
        f"One run over its training steps. {drops_in_words(marked)} Losses on unseen tasks, scores, attention and "
        "gradient norms are of one fixed batch of unseen tasks. Scores and attention are between 0 and 1, a line a "
        "head, coloured by layer; the dotted level is what examples of the same class would get if all examples got "
        "the same. Gradient norms are of the parts of the model, a panel a block."
    )
