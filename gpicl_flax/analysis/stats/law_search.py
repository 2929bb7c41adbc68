"""Fits laws to many curves at once, by least squares within bounds.

Least squares have several local optima here. So a grid of all shapes is tried, for all curves at once, and then finer
and finer ones around the best of each. A single curve, the one that is reported, is finished by scipy.
"""

import functools
import math

import numpy as np
import scipy.optimize

from gpicl_flax.analysis.stats.law_forms import Box, Form

Lines = tuple[np.ndarray, np.ndarray, np.ndarray]  # squared errors, intercepts and slopes

_AROUND = np.linspace(-1, 1, 5)  # places of the finer grids along each constant
_AT_ONCE = 32  # curves whose errors on the whole grid fit into a processor's cache
_ZOOMS, _ZOOM = 22, 0.65  # each has this fraction of the spacing of the one before; valleys take slow ones


def best(form: Form, log_n: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fits curves: log_n [K], y [R, K].

    Returns:
      The shapes [R, Q], to about 4 digits, fewer where a curve hardly tells them, and the lines [R, 2]: (a, b) of
      y = a + b feature.
    """
    axes = form.shapes(log_n)
    low, high = _bounds(axes)
    grid, gaps = _grid(axes), _grid([np.maximum(*_gaps(axis)) for axis in axes])  # [G, Q]
    feature = form.feature(log_n, grid)[None]
    parts = [y[start : start + _AT_ONCE] for start in range(0, len(y), _AT_ONCE)]
    found = np.concatenate([_lines(form.box, feature, part)[0].argmin(axis=1) for part in parts])
    shape, steps = grid[found], gaps[found]  # [R, Q]
    around = _grid([_AROUND] * len(axes))
    for _ in range(_ZOOMS):
        candidates = np.clip(shape[:, None] + around * steps[:, None], low, high)  # [R, G, Q]
        loss, *_ = _lines(form.box, form.feature(log_n, candidates), y)
        shape = np.take_along_axis(candidates, loss.argmin(axis=1)[:, None, None], axis=1)[:, 0]
        steps = steps * _ZOOM
    return shape, line(form, log_n, shape, y)


def finished(form: Form, log_n: np.ndarray, y: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fits one curve, [K], from about its best shape, [Q]. Returns its shape [Q] and its line [2]."""
    found = scipy.optimize.least_squares(
        lambda shape: _residuals(form, log_n, shape, y),
        start,
        bounds=_bounds(form.shapes(log_n)),
        xtol=1e-12,
        ftol=1e-12,
        gtol=1e-12,
    )
    # Where the best shape is at a bound, scipy ends beside it.
    shape = min((start, found.x), key=lambda shape: (_residuals(form, log_n, shape, y) ** 2).sum())
    return shape, line(form, log_n, shape[None], y[None])[0]


def line(form: Form, log_n: np.ndarray, shape: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns the best lines of given shapes: shape [R, Q], y [R, K] -> [R, 2]."""
    _, intercept, slope = _lines(form.box, form.feature(log_n, shape)[:, None], y)
    return np.concatenate([intercept, slope], axis=1)


def _residuals(form: Form, log_n: np.ndarray, shape: np.ndarray, y: np.ndarray) -> np.ndarray:
    intercept, slope = line(form, log_n, shape[None], y[None])[0]
    return y - intercept - slope * form.feature(log_n, shape)


def _bounds(axes: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first and the last value of each axis, [Q] each."""
    first, last = (np.array([axis[end] for axis in axes]) for end in (0, -1))
    return first, last


def _gaps(axis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the distances of ascending values from those before and after them; 0 beyond the ends."""
    gaps = np.diff(axis)
    return np.append(0, gaps), np.append(gaps, 0)


def _grid(axes: list[np.ndarray]) -> np.ndarray:
    """Returns every combination of the values of Q axes, [G, Q]."""
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))


def _lines(box: Box, feature: np.ndarray, y: np.ndarray) -> Lines:
    """Returns the lines of least squares within a box.

    It returns their squared errors, less the variance of y, their intercepts and their slopes: [R, G] each.

    Args:
      box: the bounds.
      feature: [R or 1, G, K].
      y: [R, K].
    """
    # With y and the feature about their means, rounding does not hide small errors. The smallest error in the box is
    # that without bounds, if it is inside, and otherwise on one of the four edges, where one of the two is known.
    centre, middle = y.mean(axis=-1)[:, None], feature.mean(axis=-1)  # [R, 1], [R or 1, G]
    y, about = y - centre, feature - middle[..., None]
    variance = np.maximum(np.einsum("rgk,rgk->rg", about, about) / y.shape[-1], np.finfo(float).tiny)
    covariance = (y @ about[0].T if len(about) == 1 else np.einsum("rk,rgk->rg", y, about)) / y.shape[-1]

    def error(intercept, slope):
        """Returns the squared error, less the variance of y."""
        return slope * (slope * variance - 2 * covariance) + (centre - intercept - slope * middle) ** 2

    found = []
    for at in filter(math.isfinite, dict.fromkeys(box.intercept)):
        slope = np.clip((covariance + middle * (centre - at)) / (variance + middle**2), *box.slope)
        found.append((error(at, slope), np.full_like(slope, at), slope))
    if box.intercept[0] < box.intercept[1]:
        for at in filter(math.isfinite, dict.fromkeys(box.slope)):
            intercept = np.clip(centre - at * middle, *box.intercept)
            found.append((error(intercept, at), intercept, np.full_like(intercept, at)))
        slope = covariance / variance
        intercept = centre - slope * middle
        inside = (intercept >= box.intercept[0]) & (intercept <= box.intercept[1])
        inside &= (slope >= box.slope[0]) & (slope <= box.slope[1])
        found.append((np.where(inside, error(intercept, slope), np.inf), intercept, slope))
    return functools.reduce(_better, found)


def _better(found: Lines, others: Lines) -> Lines:
    """Returns the lines that were found, or others where these are better."""
    is_better = others[0] < found[0]
    error, intercept, slope = (np.where(is_better, other, own) for own, other in zip(found, others, strict=True))
    return error, intercept, slope
