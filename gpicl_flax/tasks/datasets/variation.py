"""Changes how much the examples of a class vary (Chan et al. 2022, arXiv 2205.05055)."""

import dataclasses

import numpy as np

from gpicl_flax.tasks.datasets.base_dataset import BaseDataset, Split


def scale_variation(data: BaseDataset, variation: float) -> BaseDataset:
    """Returns a base dataset whose examples are m + variation (x - m), where m is the mean of their class in the split.

    Examples become float32, so that small variations are not rounded to grey values. They keep the normalisation of the
    original ones.
    """
    _, unit = data.normalization(False)
    train, test = (_scaled(split, data.num_classes, variation) for split in (data.train, data.test))
    return dataclasses.replace(data, train=train, test=test, unit=unit)


def _scaled(split: Split, num_classes: int, variation: float) -> Split:
    inputs = split.inputs.astype(np.float32)
    for label in range(num_classes):
        own = split.labels == label
        if own.any():
            mean = inputs[own].mean(axis=0, dtype=np.float64)
            inputs[own] = mean + variation * (inputs[own] - mean)
    return dataclasses.replace(split, inputs=inputs)
