"""Chooses cuDNN's fused attention, which writes no T^2 weights to memory, where the device and the shapes allow it.

`jax.nn.dot_product_attention` never chooses it by itself, and raises an error for what the kernel does not do. JAX's
conditions are in `check_is_flash_attention` of its cuDNN bindings: numbers of 16 bits; a key size that is a multiple of
8 and at most 128 (on newer cards 256); an even length where there is a bias, and for a gradient JAX always passes one,
if only an empty one. The kernel is for cards from Ampere on.
"""

from typing import Literal, NamedTuple

import jax

_TYPES = ("float16", "bfloat16")
_LENGTH_STEP = 2
_KEY_SIZE_STEP, _LARGEST_KEY_SIZE = 8, 128
_OLDEST = (8, 0)


class Accelerator(NamedTuple):
    """A kind of device.

    Attributes:
      platform: as `jax.lax.platform_dependent` names it: 'cpu', 'cuda', 'rocm' or 'tpu'.
      capability: the compute capability of a CUDA card, major and minor; (0, 0) elsewhere.
    """

    platform: str
    capability: tuple[int, int] = (0, 0)


def implementation(
    shape: tuple[int, ...], dtype: str, platform: str, capability: tuple[int, int]
) -> Literal["cudnn"] | None:
    """Returns the implementation of attention to ask `jax.nn.dot_product_attention` for; None: its own choice.

    Args:
      shape: that of queries, keys and values, [B, T, H, K].
      dtype: the name of their type.
      platform, capability: the device, see `Accelerator`.
    """
    _, length, _, key_size = shape
    fits = length % _LENGTH_STEP == 0 and key_size % _KEY_SIZE_STEP == 0 and key_size <= _LARGEST_KEY_SIZE
    fits = fits and dtype in _TYPES
    return "cudnn" if fits and platform == "cuda" and capability >= _OLDEST else None


def chosen(query: jax.Array) -> Literal["cudnn"] | None:
    """Returns the implementation for queries [B, T, H, K] on the devices of this process.

    It is called while a program is traced. Float32 never looks for the devices.
    """
    dtype = query.dtype.name
    return implementation(query.shape, dtype, *accelerator()) if dtype in _TYPES else None


def accelerator() -> Accelerator:
    """Returns the kind of the devices of this process."""
    device = jax.local_devices()[0]
    if device.platform not in ("gpu", "cuda"):
        return Accelerator(device.platform)
    if "cuda" not in device.client.platform_version:
        return Accelerator("rocm")
    major, minor = device.compute_capability.split(".")
    return Accelerator("cuda", (int(major), int(minor)))
