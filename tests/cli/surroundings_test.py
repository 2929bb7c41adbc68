"""Commands where the environment or the working folder holds something unexpected, each in a process of its own."""

import os
import pathlib
import subprocess
import sys

import pytest

import gpicl_flax
from gpicl_flax.errors import UsageError
from gpicl_flax.runtime import backend

MODULE = ("-m", "gpicl_flax")
# As the console command does, which has its own folder on the path, and not the working folder.
CONSOLE = ("-c", "import sys; del sys.path[0]; from gpicl_flax.cli.main import run_process; run_process()")
MODEL = """
import gin
from gpicl_flax.models import LSTM

@gin.configurable
class Mine(LSTM):
    pass
"""


@pytest.fixture
def gpicl(tmp_path):
    """Runs Python in a folder of its own."""
    package = str(pathlib.Path(gpicl_flax.__file__).parents[1])

    def run(*arguments, **environment):
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": package, "XLA_FLAGS": ""} | environment,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.mark.parametrize("shadows", [["gin", "random", "jax", "types"], []])
@pytest.mark.slow
def test_modules_of_the_working_folder_are_found_and_take_the_place_of_no_other(gpicl, tmp_path, shadows):
    for name in shadows:
        (tmp_path / f"{name}.py").write_text("raise AssertionError")
    (tmp_path / "mine.py").write_text(MODEL)
    grids = "sweep.grids = [{'Mine.hidden_size': [2]}]"
    (tmp_path / "mine.gin").write_text(f"import mine\ninclude 'gin/base.gin'\nRun.model = @Mine()\n{grids}\n")
    result = gpicl(*(MODULE if shadows else CONSOLE), "sweep", "--list", "--gin_file", "mine.gin")
    assert result.returncode == 0 and "hidden_size=2" in result.stdout, result.stderr


@pytest.mark.parametrize("platforms", ["nonsense", "cuda"])
def test_devices_that_are_not_there_are_named_before_data_are_read(gpicl, platforms):
    result = gpicl(*MODULE, "predict", "--context", "none.csv", "--queries", "none.csv", JAX_PLATFORMS=platforms)
    assert result.returncode == 2
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith(f"gpicl: error: JAX_PLATFORMS={platforms}: JAX has no such device here") and len(line) < 320


def test_values_of_the_environment_that_jax_refuses_are_named(gpicl):
    result = gpicl(*MODULE, "models", JAX_ENABLE_X64="maybe")
    assert result.returncode == 2
    assert result.stderr.strip().startswith("gpicl: error: JAX_ENABLE_X64=maybe: JAX knows no such value; correct")
    assert backend.environment_error(ValueError('Invalid value "x" for JAX flag jax_num_cpu_devices')) is not None
    assert backend.environment_error(ValueError("another")) is None


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--xla_no_such_flag=1", "Unknown flag in XLA_FLAGS: --xla_no_such_flag=1; correct XLA_FLAGS"),
        ("--xla_force_host_platform_device_count=many", "value many for flag xla_force_host_platform_device_count"),
    ],
)
def test_flags_that_xla_does_not_know_are_named(monkeypatch, flags, words):
    backend.check()
    monkeypatch.setenv("XLA_FLAGS", flags)
    with pytest.raises(UsageError, match=words):
        backend.check()


@pytest.mark.slow
def test_figures_are_drawn_whatever_a_notebook_or_a_matplotlibrc_asks_for(gpicl, tmp_path):
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nbackend: no_such_backend\n")
    result = gpicl(*MODULE, "datasets", "show", "digits", MPLBACKEND="module://no_such_module.backend")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "digits.png").stat().st_size > 10_000
