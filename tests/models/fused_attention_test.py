"""The fused kernel of GPUs is asked for where it exists, and nowhere else does any program change.

No GPU is needed: programs for CUDA can be lowered on any machine, only not compiled.
"""

import functools
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo as cudnn

from gpicl_flax.models import SlidingWindowTransformer, Transformer, fused_attention
from gpicl_flax.models.attention import (
    attention_in_blocks,
    attention_in_few_passes,
    causal_attention,
    windowed_attention,
)
from gpicl_flax.models.fused_attention import Accelerator, implementation
from gpicl_flax.tasks.families.projected_images import ProjectedImages
from gpicl_flax.training.cost import lowering
from gpicl_flax.training.optimizers import adam
from gpicl_flax.training.partitioning import MeshShape
from gpicl_flax.training.settings import Training

HOPPER = Accelerator("cuda", (9, 0))
SHAPE = (2, 100, 4, 32)
WINDOWED = functools.partial(windowed_attention, window=8)
KERNELS = ["__cudnn$fmhaSoftmax", "__cudnn$fmhaSoftmaxBackward"]


@pytest.mark.parametrize(
    ("shape", "dtype", "accelerator", "expected"),
    [
        (SHAPE, "bfloat16", HOPPER, "cudnn"),
        (SHAPE, "float16", HOPPER, "cudnn"),
        (SHAPE, "float32", HOPPER, None),
        (SHAPE, "bfloat16", Accelerator("cuda", (12, 0)), "cudnn"),
        (SHAPE, "bfloat16", Accelerator("cuda", (8, 0)), "cudnn"),
        (SHAPE, "bfloat16", Accelerator("cuda", (7, 5)), None),
        (SHAPE, "bfloat16", Accelerator("rocm"), None),
        (SHAPE, "bfloat16", Accelerator("tpu"), None),
        (SHAPE, "bfloat16", Accelerator("cpu"), None),
        ((2, 2, 3, 8), "bfloat16", HOPPER, "cudnn"),
        ((2, 101, 4, 32), "bfloat16", HOPPER, None),
        ((2, 100, 4, 128), "bfloat16", HOPPER, "cudnn"),
        ((2, 100, 4, 136), "bfloat16", HOPPER, None),
        ((2, 100, 4, 12), "bfloat16", HOPPER, None),
        ((2, 100, 4, 1), "bfloat16", HOPPER, None),
        ((2, 1, 4, 32), "bfloat16", HOPPER, None),
    ],
)
def test_the_kernel_is_chosen_where_it_exists(shape, dtype, accelerator, expected):
    assert implementation(shape, dtype, *accelerator) == expected


@pytest.mark.parametrize(
    ("platform", "version", "capability", "expected"),
    [
        ("gpu", "PJRT C API\ncuda 13000", "12.0", Accelerator("cuda", (12, 0))),
        ("gpu", "PJRT C API\nrocm 70000", "gfx942", Accelerator("rocm")),
        ("tpu", "PJRT C API\nTFRT TPU v5 lite", None, Accelerator("tpu")),
    ],
)
def test_an_accelerator_is_what_jax_says(platform, version, capability, expected, monkeypatch):
    client = types.SimpleNamespace(platform_version=version)
    device = types.SimpleNamespace(platform=platform, client=client, compute_capability=capability)
    monkeypatch.setattr(jax, "local_devices", lambda: [device])
    assert fused_attention.accelerator() == expected


def test_this_machine_is_none():
    assert fused_attention.accelerator() == Accelerator("cpu")


@pytest.fixture
def on_a_gpu(monkeypatch):
    """Programs are traced as on a GPU with cuDNN."""
    monkeypatch.setattr(fused_attention, "accelerator", lambda: HOPPER)
    monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: 91400)
    monkeypatch.setattr(cudnn, "check_compute_capability", lambda capability: capability != "9.0")
    monkeypatch.setattr(cudnn, "is_cuda_compute_capability_equal", lambda capability: False)


@pytest.mark.parametrize("window", [None, 8])
@pytest.mark.parametrize(("length", "key_size"), [(100, 1), (100, 8), (100, 12), (100, 128), (2, 8), (1, 8), (7, 8)])
def test_the_library_accepts_what_is_chosen(length, key_size, window, on_a_gpu):
    """JAX's own conditions, for a gradient, on the oldest card that is allowed here."""
    function = causal_attention if window is None else WINDOWED
    assert lowered(function, "bfloat16", "cuda", (2, length, 4, key_size))


def without_kernel(query, key, value):
    """Causal attention as it was before the kernel was an option."""
    library = functools.partial(jax.nn.dot_product_attention, is_causal=True)
    return jax.lax.platform_dependent(query, key, value, cpu=attention_in_few_passes, default=library)


def lowered(function, dtype, platform, shape=SHAPE):
    """The text of the program of a gradient, for a platform that need not be here."""

    def loss(*arguments):
        return function(*arguments).astype(jnp.float32).sum()

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))
    return gradient.trace(*[jax.ShapeDtypeStruct(shape, dtype)] * 3).lower(lowering_platforms=(platform,)).as_text()


def kernels(text):
    return re.findall(r"custom_call @(__cudnn[\w$]+)", text)


@pytest.mark.parametrize("function", [causal_attention, WINDOWED])
def test_programs_for_cuda_have_the_kernel_where_there_is_a_gpu(function, on_a_gpu):
    text = lowered(function, "bfloat16", "cuda")
    assert kernels(text) == KERNELS and "dot_general" not in text
    others = {platform: lowered(function, "bfloat16", platform) for platform in ("cpu", "tpu")}
    others["float32"] = lowered(function, "float32", "cuda")
    assert all(not kernels(text) and "dot_general" in text for text in others.values())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("function", "before"),
    [(causal_attention, without_kernel), (WINDOWED, functools.partial(attention_in_blocks, window=8))],
)
def test_programs_without_a_gpu_are_what_they_were(function, before, dtype):
    for platform in ("cpu", "tpu"):
        assert lowered(function, dtype, platform) == lowered(before, dtype, platform)


def test_the_kernel_is_told_mask_and_window(on_a_gpu):
    def told(window):
        function = functools.partial(windowed_attention, window=window)
        text = lowered(function, "bfloat16", "cuda").replace("\\22", '"')
        masks = re.findall(r'"mask_type": "(\w+)"', text)
        return masks, [int(size) for size in re.findall(r'"sliding_window_length": (\d+)', text)]

    assert told(8) == (["CAUSAL"] * 2, [9, 9])  # itself and the 8 before
    assert told(SHAPE[1]) == (["CAUSAL"] * 2, [0, 0])  # everything


def test_the_window_of_the_library_is_that_of_blocks():
    """The kernel is reached through the library, whose own implementation runs here."""
    rng = np.random.default_rng(0)
    query, key, value = (rng.normal(size=(2, 100, 2, 8)).astype(np.float32) for _ in range(3))
    library = jax.jit(functools.partial(jax.nn.dot_product_attention, is_causal=True, local_window_size=(8, 0)))
    np.testing.assert_allclose(library(query, key, value), jax.jit(WINDOWED)(query, key, value), atol=1e-5)


SIZES = {"num_layers": 2, "num_heads": 2, "key_size": 8, "model_size": 16}


def test_a_model_in_bfloat16_uses_the_kernel_on_a_gpu(data, on_a_gpu):
    data = tuple(x[:, :6] for x in data)
    model = SlidingWindowTransformer(**SIZES, window=3, dtype="bfloat16")
    params = jax.eval_shape(model.init, jax.random.key(0), *data)

    def gradient(model):
        function = jax.jit(jax.grad(lambda params: model.apply(params, *data).sum()))
        return function.trace(params).lower(lowering_platforms=("cuda",)).as_text()

    assert sorted(kernels(gradient(model))) == sorted(2 * KERNELS)
    assert not kernels(gradient(model.clone(dtype="float32")))


@pytest.mark.slow
def test_the_training_steps_of_a_stack_use_it(on_a_gpu):
    tasks = ProjectedImages(input_shape=(9,), task_batch_size=4, sequence_length=6, num_tasks=None)
    training = Training(steps=2, steps_per_dispatch=2, checkpoint_period=2)
    mesh = MeshShape(data=1).build(devices=jax.devices()[:1])
    model = Transformer(**SIZES, dtype="bfloat16")
    traced = lowering.trace(model, adam(), tasks, tasks.assumed_drawing(), training, mesh=mesh, num_members=2)
    assert sorted(kernels(traced.lower(lowering_platforms=("cuda",)).as_text())) == sorted(2 * KERNELS)
