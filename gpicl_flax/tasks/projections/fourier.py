"""Random Fourier features of projected inputs (Rahimi & Recht 2007, Section 3)."""

import math

import jax
import jax.numpy as jnp
import numpy as np

# The width of the kernel of a task, in units of the typical norm of an input. The median distance of two independent
# inputs is sqrt(2), the middle of this range. Narrow kernels tell only near neighbours from others, with wide ones
# features are almost linear.
WIDTHS = 0.5, 4.0


def fourier_features(key: jax.Array, projected: jax.Array, input_rms: jax.Array | np.float32) -> jax.Array:
    """Maps linear projections of inputs to random Fourier features, of which a task has as many as projections.

    A projection A x with A iid N(0, 1/X) is W x / sqrt(X) with W iid N(0, 1). The features are

        sqrt(2) input_rms cos(W x / (h sqrt(X) input_rms) + b)

    so that the mean product of the features of x and x', over tasks of one width, is the Gaussian kernel
    exp(-|x - x'|^2 / (2 (h sqrt(X) input_rms)^2)) times input_rms^2, where sqrt(X) input_rms is the typical norm of an
    input. Features have the mean square of the linear ones.

    Args:
      key: that of the features of a task, which determines its width h, log-uniform in `WIDTHS`, and its phases b,
        uniform in [0, 2 pi).
      projected: A x, [..., X].
      input_rms: the root mean square of the inputs x, a scalar.

    Returns:
      Features [..., X].
    """
    width_key, phase_key = jax.random.split(key)
    low, high = (math.log(width) for width in WIDTHS)
    width = jnp.exp(jax.random.uniform(width_key, minval=low, maxval=high))
    phases = jax.random.uniform(phase_key, projected.shape[-1:], maxval=2 * math.pi)
    return math.sqrt(2) * input_rms * jnp.cos(projected / (width * input_rms) + phases)
