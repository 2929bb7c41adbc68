"""Tests run on the CPU backend with 8 devices, so that sharded programs are tested without an accelerator."""

import os
import tempfile

# Many tests compile the same small programs: within one run of the suite, each is compiled once, also where several
# processes share its tests.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _CACHE = tempfile.TemporaryDirectory(prefix="gpicl_flax_tests_")
    os.environ |= {"JAX_COMPILATION_CACHE_DIR": f"{_CACHE.name}/jax", "XDG_CACHE_HOME": f"{_CACHE.name}/xdg"}
os.environ |= {
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # read when gcsfs is imported; it would ask Google about buckets
}

import dataclasses
import gc
import signal
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from gpicl_flax.cli.main import main
from gpicl_flax.config import Config
from gpicl_flax.records import lease
from gpicl_flax.records.run_folder import write_json
from gpicl_flax.runs.run import Run
from gpicl_flax.sweep import grid
from gpicl_flax.tasks.datasets.base_dataset import BaseDataset, Split
from tests.fakes.gcs.handle import FakeGcs

# JAX makes many small objects while it traces. With Python's own thresholds, the collector takes up to a sixth of the
# time of a run whose programs are compiled already.
gc.set_threshold(50_000, 20, 50)


@pytest.fixture(autouse=True)
def default_signals():
    """Gives Ctrl-C and SIGTERM their default dispositions during each test, also in the processes that it starts.

    A shell without job control starts what is in the background (`make test &` in a script) with SIGINT ignored.
    Children inherit that, and bash cannot trap a signal that was ignored when it started.
    """
    defaults = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in defaults.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def wait_for() -> Callable[..., None]:
    """Blocks until a condition holds; fails after ten minutes, which is far more than any condition takes."""

    def wait_for(condition, is_alive=lambda: True):
        until = time.monotonic() + 600
        while not condition():
            assert is_alive(), "the process ended before that"
            assert time.monotonic() < until, "waited in vain"
            time.sleep(0.02)

    return wait_for


@pytest.fixture(scope="session")
def gcs_server() -> Iterator[FakeGcs]:
    """A storage server with an empty bucket named 'bucket', for all tests of this process."""
    with FakeGcs() as gcs:
        yield gcs


@pytest.fixture
def gcs(gcs_server, monkeypatch) -> Iterator[FakeGcs]:
    """The storage server without objects and faults, used by gs:// here and in processes that the test starts."""
    import gcsfs

    gcs_server.start()
    gcs_server.clear_faults()
    gcs_server.clear()
    gcs_server.mark()
    for name, value in gcs_server.environment.items():
        monkeypatch.setenv(name, value)
    gcsfs.GCSFileSystem.clear_instance_cache()  # file systems that have another address
    yield gcs_server
    gcsfs.GCSFileSystem.clear_instance_cache()


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


@pytest.fixture(scope="session")
def tiny() -> Callable[[Config], tuple[Config, Run]]:
    """Makes two steps of any configuration quick.

    The data are the least possible, and so are the layers, which compiling is in proportion to.
    """
    always = {
        "Training.steps_per_dispatch": 2,
        "Training.checkpoint_period": 2,
        "Training.accumulation": 1,
        "Training.diagnostics": None,
        "MetaTest.at_checkpoints": False,
        "MetaTest.num_sequences": 16,
        "MeshShape.data": 1,
    }
    images = {
        "TaskDistribution.base_dataset": "random",
        "TaskDistribution.input_shape": (2, 2, 1),
        "TaskDistribution.sequence_length": 4,
        "MetaTest.base_datasets": ("random",),
    }
    models = {
        "Transformer": {"Transformer.num_layers": 1, "Transformer.model_size": 16, "Transformer.key_size": 4},
        "DeltaNet": {"DeltaNet.num_layers": 1},
    }

    def shrink(config):
        run, _ = config.resolve(Run)
        sizes = {"Training.steps": min(run.training.steps, 2), f"{run.tasks.gin_name}.task_batch_size": 2}
        sizes |= images if run.tasks.has_base_datasets else {}
        unused = [name for name in config.bindings if name.startswith("Diagnostics.")]
        config = config.without(grid.LABELS, *unused).override(
            always | sizes | models.get(type(run.model).__name__, {})
        )
        return config, config.resolve(Run)[0]

    return shrink


@pytest.fixture
def gin_file(small_bindings, tmp_path) -> str:
    """The paper's common setting, shrunk."""
    path = tmp_path / "small.gin"
    path.write_text("\n".join(["include 'gin/base.gin'", *small_bindings]))
    return str(path)


@pytest.fixture
def quick(gin_file) -> list[str]:
    """Options of a command for runs of 20 steps."""
    options = ["--gin_file", gin_file]
    for binding in (
        "Run.model = @LSTM()",
        "LSTM.hidden_size = 4",
        "Training.steps = 20",
        "Training.checkpoint_period = 20",
    ):
        options += ["--gin_bindings", binding]
    return options


@pytest.fixture
def refused(capsys):
    """(arguments, words) -> nothing, if the command is wrong usage and says so in one line with these words."""

    def refused(arguments, *words):
        assert main(arguments) == 2
        captured = capsys.readouterr()
        message = captured.err.strip()
        assert message.startswith("gpicl: error: ") and "\n" not in message, message
        assert all(word in message for word in words), message
        assert captured.out == ""

    return refused


@pytest.fixture
def other_holds():
    """(folder, fields) -> writes the lease of a process of another host, which has a heartbeat now."""

    def write(folder, **fields):
        record = {"number": 1, "host": "tpu-7", "pid": 12, "started": 0.0, "since": 0.0, "time": time.time()} | fields
        values = dataclasses.asdict(lease.LeaseRecord(**record))
        write_json(folder.path / lease.FOLDER / f"{values.pop('number'):08d}.json", values)

    return write
