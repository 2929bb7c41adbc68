"""The attention of a Transformer along sequences, by layer and head."""

import numpy as np
import pandas as pd
from matplotlib.colors import LogNorm

from gpicl_flax.analysis.data.frames import group_by
from gpicl_flax.analysis.figures import chart
from gpicl_flax.analysis.figures.chart import COLOURS, Chart

_NAME, _TITLE = "attention", "Attention over positions"
_MOST = 8  # heads


def same_label(labels: np.ndarray) -> np.ndarray:
    """Returns whether position t can look at token i and finds its own label there: labels [B, T] -> [B, T, T].

    Token i contains the label of example i - 1.
    """
    known = np.pad(labels, ((0, 0), (1, 0)), constant_values=-1)[:, :-1]
    return (labels[:, :, None] == known[:, None, :]) & np.tri(labels.shape[1], dtype=bool)


def numbers(weights: dict[str, np.ndarray], labels: np.ndarray) -> pd.DataFrame:
    """Returns a row for each layer, head and position: how much of its attention helps.

    `share` is the attention on tokens with the position's own label. `uniform` is what that would be if all tokens got
    equal attention. Both are means over sequences.

    Args:
      weights: by layer, [B, heads, T, T]: row t is the attention of position t (`learners.inspect.attention`).
      labels: those of the task, [B, T].
    """
    same = same_label(labels)
    uniform = (same.sum(axis=-1) / np.arange(1, labels.shape[1] + 1)).mean(axis=0)
    parts = [
        pd.DataFrame({"layer": layer, "head": head, "position": range(len(row)), "share": row, "uniform": uniform})
        for layer, heads in weights.items()
        for head, row in enumerate((heads * same[:, None]).sum(axis=-1).mean(axis=0))
    ]
    columns = ["layer", "head", "position", "share", "uniform"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def draw(weights: dict[str, np.ndarray], labels: np.ndarray, index: int = 0) -> Chart:
    """Draws a map of each head in the sequence `index` and, below, how much of its attention helps.

    Args:
      weights, labels: see `numbers`.
      index: the number of the sequence.
    """
    lacks = chart.missing({"a model with attention": bool(weights)})
    if lacks:
        return Chart(_NAME, _TITLE, lacks)
    table = numbers(weights, labels)
    heads, more = chart.first(group_by(table, ["layer", "head"], sort=False), _MOST, "heads")
    figure, grid = chart.panels(2 * len(heads), columns=len(heads))
    maps, curves = grid[: len(heads)], grid[len(heads) :]
    images = []
    for axes, ((layer, head), _) in zip(maps, heads, strict=True):
        look = LogNorm(1e-3, 1, clip=True)
        square = np.where(np.tri(labels.shape[1], dtype=bool), weights[layer][index, head], np.nan)
        images.append(axes.imshow(square, cmap="viridis", norm=look, interpolation="nearest"))
        axes.set(xlabel="token", ylabel="position")
        chart.title(axes, f"{layer}, head {head}", "")
    figure.colorbar(images[-1], ax=maps, label="weight", shrink=0.9)
    top = 1.05 * max(rows[["share", "uniform"]].to_numpy().max() for _, rows in heads)
    for axes, (_, rows) in zip(curves, heads, strict=True):
        axes.plot(rows["position"], rows["share"], color=COLOURS[1], label="attention to tokens with the right label")
        axes.plot(rows["position"], rows["uniform"], color="0.4", linestyle=":", label="if it looked at all alike")
        axes.set(xlabel="examples seen in the sequence", ylabel="share", ylim=(0, top))
        chart.count_ticks(axes)
        axes.grid(alpha=0.3)
    chart.legend(figure)
    caption = (
        "Above, in one sequence: row t is the attention of position t, which sums to one and reaches no token after t. "
        f"Token t brings example t and the label of the example before it. Below, the mean over {len(labels)} "
        "sequences: the share that lies on tokens which bring the label that position t has to predict. Where it is "
        f"above the dotted line, the head looks for examples that help.{more}"
    )
    return Chart(_NAME, _TITLE, caption, figure, table)
