"""Converts examples to pictures."""

import numpy as np


def grey_values(raw: np.ndarray) -> np.ndarray:
    """Returns [n, features] in [0, 1]: grey values unchanged, features scaled between their extremes."""
    if raw.dtype == np.uint8:
        return raw.astype(np.float32) / 255
    return (raw - raw.min()) / (np.ptp(raw) or 1)


def as_images(pixels: np.ndarray, input_shape: tuple[int, ...]) -> np.ndarray:
    """Converts [n, X] to [n, height, width] or [n, height, width, 3]."""
    if len(input_shape) == 1:
        side = int(input_shape[0] ** 0.5)
        return pixels[:, : side**2].reshape(-1, side, side)
    images = pixels.reshape(-1, *input_shape)
    return images if images.shape[-1] == 3 else images.mean(axis=-1)
