"""A contact sheet: examples of a base dataset as they are, and after the projections of tasks."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from matplotlib.figure import Figure

from gpicl_flax.errors import UsageError
from gpicl_flax.tasks import keys
from gpicl_flax.tasks.augmentation import Augmentation, Examples
from gpicl_flax.tasks.datasets.base_dataset import BaseDataset
from gpicl_flax.tasks.datasets.images import as_images, grey_values
from gpicl_flax.tasks.projections import input_space
from gpicl_flax.tasks.projections.spec import ProjectionSpec

NUM_TASKS = 3
_MAX_FEATURES, _MAX_CLASSES = 4096, 20
_ROWS = 2  # examples of each class
_SPREAD = 3.0  # standard deviations of a projected input between black and white


def draw(dataset: BaseDataset, seed: int = 0) -> Figure:
    """Draws one panel of training examples, a column for each class, and one for each of the tasks 0, 1, 2 of a run.

    The run has the seed `seed`. All panels have the same examples in the same places. Features are drawn as a square of
    pixels, as far as they fill one.

    Raises:
      UsageError: an example has too many inputs to project.
    """
    num_features, num_classes = math.prod(dataset.input_shape), min(dataset.num_classes, _MAX_CLASSES)
    if num_features > _MAX_FEATURES:
        raise UsageError(
            f"base dataset {dataset.name!r} has {num_features:,} inputs, whose projections would have their square; "
            "choose a smaller input shape (--input_shape 32 32 3)"
        )
    columns = [np.flatnonzero(dataset.train.labels == label)[:_ROWS] for label in range(num_classes)]
    indices = np.concatenate(columns)
    places = [(row, label) for label, column in enumerate(columns) for row in range(len(column))]
    stored, labels = dataset.train.inputs[indices], dataset.train.labels[indices]
    offset, scale = dataset.normalization(True)
    projection = ProjectionSpec("span", dataset.stored_shape, dataset.input_shape)
    coordinates = projection.coordinates(dataset.stored_shape)((stored.astype(np.float32) - offset) / scale)
    inputs, task_labels = jax.device_get(
        Augmentation(projection, dataset.num_classes).make_sequences(
            keys.task_key(seed),
            jnp.arange(NUM_TASKS, dtype=jnp.uint32),
            Examples(*(jnp.repeat(x[None], NUM_TASKS, axis=0) for x in (coordinates, labels))),
            permute_labels_prob=1.0,
        )
    )
    growth = input_space.growth(dataset.stored_shape, dataset.input_shape)
    panels = [("raw", np.asarray(growth(grey_values(stored))), labels)]
    for task in range(NUM_TASKS):
        # A projection has no fixed range: its mean is 0 and its standard deviation about that of the normalised inputs.
        pixels = np.clip(inputs[task] / (2 * _SPREAD) + 0.5, 0, 1)
        panels.append((f"task {task}", pixels, task_labels[task]))
    size = 0.62 * num_classes + 0.4, 1.65 * len(panels) + 0.5
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(panels))
    for panel, (title, pixels, panel_labels) in zip(axes, panels, strict=True):
        _draw_panel(panel, title, as_images(pixels, dataset.input_shape), panel_labels, places, num_classes)
    figure.suptitle(f"{dataset.name}: training examples, and the same as tasks (label above)", fontsize="medium")
    return figure


def save(figure: Figure, path: epath.Path) -> None:
    """Writes the figure as a PNG file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        figure.savefig(file, dpi=150)


def _draw_panel(axes, title, images, labels, places, num_classes: int) -> None:
    height, width = images.shape[1:3]
    gap = max(1, height // 5), max(1, width // 8)
    sheet = np.ones((_ROWS * (height + gap[0]), num_classes * (width + gap[1]), *images.shape[3:]))
    for image, (row, column) in zip(images, places, strict=True):
        top, left = row * (height + gap[0]), column * (width + gap[1])
        sheet[top : top + height, left : left + width] = image
    axes.imshow(sheet, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    for label, (row, column) in zip(labels, places, strict=True):
        if row == 0:
            axes.text(column * (width + gap[1]) + width / 2, -gap[0], str(label), ha="center", fontsize="small")
    axes.set_ylabel(title)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
