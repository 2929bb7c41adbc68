"""The path of a recurrent model's state along sequences."""

import numpy as np
import pandas as pd

from gpicl_flax.analysis.figures import chart
from gpicl_flax.analysis.figures.chart import COLOURS, Chart

_NAME, _TITLE = "state_path", "How the state moves over positions"


def moves(states: np.ndarray) -> np.ndarray:
    """Returns how far each token moves the state: states [B, T + 1, numbers] -> [B, T].

    It is ||s_t - s_{t-1}||, divided by the mean norm of the states of its sequence; NaN where these are all zero.
    """
    length = np.linalg.norm(states[:, 1:], axis=-1).mean(axis=1, keepdims=True)
    return np.linalg.norm(np.diff(states, axis=1), axis=-1) / np.where(length > 0, length, np.nan)


def similarity(states: np.ndarray) -> np.ndarray:
    """Returns cosines between the states after 1 to T tokens: states [B, T + 1, numbers] -> [T, T].

    They are means over sequences. The cosine with a zero state is 0.
    """
    length = np.linalg.norm(states, axis=-1, keepdims=True)
    unit = (states / np.where(length > 0, length, 1))[:, 1:]
    return np.einsum("btn,bsn->ts", unit, unit) / len(unit)


def draw(states: np.ndarray | None, model: str) -> Chart:
    """Draws how far each token moves the state (left), and how similar states after different tokens are (right).

    Args:
      states: [B, T + 1, numbers], or None where the model has no state of fixed size (`learners.inspect.states`).
      model: its name.
    """
    lacks = chart.missing({"a model whose state has a fixed size": states is not None})
    if states is None:
        return Chart(_NAME, _TITLE, lacks)
    moved = moves(states)
    low, middle, high = np.quantile(moved, [0.1, 0.5, 0.9], axis=0)
    tokens = np.arange(1, moved.shape[1] + 1)
    figure, (left, right) = chart.panels(2, size=(5.2, 3.9))
    left.plot(tokens, middle, color=COLOURS[0], label="median")
    left.fill_between(tokens, low, high, color=COLOURS[0], alpha=0.2, linewidth=0, label="80% of the sequences")
    left.set(xlabel="tokens read", ylabel="move / mean length of the state", ylim=(0, None))
    chart.count_ticks(left)
    left.legend(frameon=False)
    left.grid(alpha=0.3)
    start, end = 0.5, len(tokens) + 0.5
    image = right.imshow(
        similarity(states), cmap="viridis", vmax=1, interpolation="nearest", extent=(start, end, end, start)
    )
    right.set(xlabel="tokens read", ylabel="tokens read")
    right.locator_params(nbins=5, integer=True)
    figure.colorbar(image, ax=right, label="cosine of the two states")
    caption = (
        f"Of the {states.shape[-1]:,} numbers that {model} answers from, over {len(states)} sequences of unseen tasks. "
        "Left: how far each token moves them, against their mean length. Right: the cosine between the states after "
        "any two numbers of tokens: where rows far from the diagonal stay bright, the state has settled."
    )
    table = pd.DataFrame({"tokens": tokens, "median": middle, "low": low, "high": high})
    return Chart(_NAME, _TITLE, caption, figure, table)
