"""Random projections of inputs, and the space in which they are drawn."""

from gpicl_flax.tasks.projections.fourier import fourier_features
from gpicl_flax.tasks.projections.spec import draw, gram_inputs

__all__ = ["draw", "fourier_features", "gram_inputs"]
