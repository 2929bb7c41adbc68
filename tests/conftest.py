"""Tests run on the CPU backend with 8 devices, so that sharded programs are tested without an accelerator."""

import os
import tempfile

# Many tests compile the same small programs: within one run of the suite, each is compiled once.
_CACHE = tempfile.TemporaryDirectory(prefix="gpicl_flax_tests_")
os.environ |= {
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0",
    "JAX_COMPILATION_CACHE_DIR": f"{_CACHE.name}/jax",
    "XDG_CACHE_HOME": f"{_CACHE.name}/xdg",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}

import numpy as np
import pytest

from gpicl_flax.tasks.base_dataset import BaseDataset, Split


@pytest.fixture
def toy_dataset() -> BaseDataset:
    """200 train and 120 test images of 9 pixels; train pixels are below 128 and test pixels above."""
    rng = np.random.default_rng(0)

    def split(size, low, high):
        return Split(rng.integers(low, high, (size, 9), dtype=np.uint8), rng.integers(0, 10, size).astype(np.int32))

    train = split(200, 0, 128)
    return BaseDataset(
        "toy", train, split(120, 128, 256), float(train.inputs.mean()), float(train.inputs.std()), (9,), 10
    )


@pytest.fixture(scope="session")
def small_bindings() -> list[str]:
    """Bindings that shrink any gin file of the project to a fraction of a second a step, on digits."""
    return [
        "TaskDistribution.base_dataset = 'digits'",
        "TaskDistribution.input_shape = (4, 4, 1)",
        "TaskDistribution.sequence_length = 6",
        "TaskDistribution.task_batch_size = 8",
        "MetaTest.num_sequences = 20",
        "MetaTest.base_datasets = ['digits']",
        "MeshShape.data = 1",
    ]
