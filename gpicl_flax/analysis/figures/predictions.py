"""One sequence in pictures: its examples, their labels in the task, and a learner's prediction before it sees each."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from gpicl_flax.analysis.figures.chart import COLOURS, Chart, count_ticks

_RIGHT, _WRONG = COLOURS[2], COLOURS[1]
_COLUMNS = 20  # pictures in a row
_ROW, _BELOW = 0.72, 3.4  # heights of a row of pictures and of the curve, in inches


def numbers(probabilities: np.ndarray, labels: np.ndarray, index: int) -> pd.DataFrame:
    """Returns a row for each position of one sequence (from 0: the number of examples seen before).

    Further columns: label, prediction, of_label and of_prediction (the probabilities given to them), mean_of_label and
    accuracy (over all sequences).

    Args:
      probabilities: [B, T, C], of every label before the right one is seen (`learners.inspect.predictions`).
      labels: those of the task, [B, T].
      index: the number of the sequence.
    """
    of_label = np.take_along_axis(probabilities, labels[..., None], axis=-1)[..., 0]
    predictions = probabilities.argmax(axis=-1)
    return pd.DataFrame(
        {
            "position": range(labels.shape[1]),
            "label": labels[index],
            "prediction": predictions[index],
            "of_label": of_label[index],
            "of_prediction": probabilities[index].max(axis=-1),
            "mean_of_label": of_label.mean(axis=0),
            "accuracy": (predictions == labels).mean(axis=0),
        }
    )


def draw(
    probabilities: np.ndarray, labels: np.ndarray, images: np.ndarray, *, model: str, base_dataset: str, index: int = 0
) -> Chart:
    """Draws the pictures of the sequence `index` in their order and, below, the probability given to the right label.

    Args:
      probabilities, labels: see `numbers`.
      images: [B, T, height, width] or [B, T, height, width, 3], the examples before the task's projection, in [0, 1].
      index: the number of the sequence.
      model, base_dataset: their names.
    """
    table = numbers(probabilities, labels, index)
    rows = -(-len(table) // _COLUMNS)
    figure = Figure(figsize=(11, _ROW * rows + _BELOW), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=[_ROW * rows, _BELOW])
    above, below = parts
    grid = above.subplots(rows, _COLUMNS, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, image, row in zip(grid, images[index], table.to_dict("records"), strict=False):
        axes.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        label, prediction = row["label"], row["prediction"]
        text = f"{label}" if prediction == label else f"{label} ({prediction})"
        axes.set_title(text, color=_RIGHT if prediction == label else _WRONG, fontsize="small", pad=2)
    _draw_probabilities(below.subplots(), table, len(labels))
    caption = (
        f"Above: the {len(table)} examples of one sequence of an unseen task, made from test examples of "
        f"{base_dataset}, row by row in the order in which the learner reads them, as they are before the task's "
        "projection, which is all it gets of them. Over each its label in the task, in green where the learner "
        "predicted it, else in orange with what it predicted. Below: the probability that it gave to the right label "
        f"before it was shown, a dot an example in the same colours, and the mean over {len(labels)} sequences, each "
        "of another unseen task."
    )
    return Chart("predictions", f"What {model} predicts along a sequence", caption, figure, table)


def _draw_probabilities(axes, table: pd.DataFrame, count: int) -> None:
    for colour, right, words in ((_RIGHT, True, "right"), (_WRONG, False, "wrong")):
        rows = table[(table["prediction"] == table["label"]) == right]
        axes.plot(rows["position"], rows["of_label"], "o", color=colour, label=f"this sequence, predicted {words}")
    axes.plot(table["position"], table["mean_of_label"], color=COLOURS[0], label=f"mean of {count} sequences")
    axes.set(xlabel="examples seen in the sequence", ylabel="probability of the right label", ylim=(-0.02, 1.02))
    count_ticks(axes)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
