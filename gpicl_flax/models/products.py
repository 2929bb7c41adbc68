"""Products with parameters that round nothing but the gradient of these parameters.

Recurrent states, gates that saturate, ReLUs that are near zero, and reads that are almost zero before they are
normalised amplify the rounding of all that they are computed from. With activations in bfloat16, gradients are then
those of another function. The same goes backward for what such a part hands on. But nothing is computed from the
gradient of a parameter, so its rounding stays what it is: at most 2^-8 of the sum of magnitudes. So models with any of
these parts compute in float32, and keep bfloat16 for what the gradients of their parameters are made from. It saves
less than bfloat16 activations would: only these operands, which are kept from the forward pass, take half the memory.
"""

import functools

import jax
import jax.numpy as jnp


def product(x: jax.Array, kernel: jax.Array, backward_dtype: str) -> jax.Array:
    """Returns x @ kernel for x [..., n], kernel [n, m]. Only the gradient of the kernel rounds to `backward_dtype`."""
    return x @ kernel if x.dtype == backward_dtype else _product(x, kernel, backward_dtype)


def contract(subscripts: str, x: jax.Array, y: jax.Array, dtype: str | None) -> jax.Array:
    """Returns the einsum of two arrays that are rounded to `dtype`, if it is given, with sums in their own type."""
    rounded = (array.astype(dtype or array.dtype) for array in (x, y))
    return jnp.einsum(subscripts, *rounded, preferred_element_type=x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _product(x, kernel, backward_dtype):
    return x @ kernel


def _forward(x, kernel, backward_dtype):
    return x @ kernel, (x.astype(backward_dtype), kernel)


def _backward(backward_dtype, operands, gradient):
    x, kernel = operands
    return gradient @ kernel.T, contract("...m,...n->nm", gradient, x, backward_dtype)


_product.defvjp(_forward, _backward)
