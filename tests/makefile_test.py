"""`make install` sets up an environment for an accelerator, remembers which, and installs again where it changes."""

import pathlib
import re
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[1]


def dry_run(folder, *variables):
    """What `make install` would do in an environment at `folder`."""
    command = ["make", "--dry-run", "install", f"VENV={folder}", "PYTHON=python3", *variables]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def extras(folder, *variables):
    """The extras that `make install` would install, or None if it would install nothing."""
    result = dry_run(folder, *variables)
    assert result.returncode == 0, result.stderr
    found = re.findall(r"-e '\.\[(.+)\]'", result.stdout)
    return found[0] if found else None


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """(extra or None) -> the folder of an environment that has it; None: one from before extras were remembered."""
    if not shutil.which("make"):
        pytest.skip("needs make")
    for name in ("EXTRA", "MAKEFLAGS", "MFLAGS"):
        monkeypatch.delenv(name, raising=False)

    def make(extra):
        if extra is not None:
            (tmp_path / ".extra").write_text(f"{extra}\n")
        (tmp_path / ".installed").touch()
        return tmp_path

    return make


def test_a_new_environment_has_the_extra_that_is_named(environment, tmp_path):
    assert extras(tmp_path / "new") == "test,embeddings"
    assert extras(tmp_path / "new", "EXTRA=gpu") == "test,embeddings,gpu"
    assert extras(tmp_path / "new", "EXTRA=tpu") == "test,embeddings,tpu"


@pytest.mark.parametrize("before", [None, "", "gpu"])
def test_an_environment_is_installed_again_only_where_its_extra_changes(environment, before):
    folder = environment(before)
    assert extras(folder) is None  # whatever it has
    assert extras(folder, f"EXTRA={before or ''}") is None
    assert extras(folder, "EXTRA=tpu") == "test,embeddings,tpu"
    if before:
        assert extras(folder, "EXTRA=") == "test,embeddings"


def test_an_unknown_extra_is_an_error_in_one_line(environment, tmp_path):
    result = dry_run(tmp_path / "new", "EXTRA=cuda")
    assert result.returncode == 2 and "EXTRA must be gpu or tpu, not cuda" in result.stderr
    assert result.stderr.count("\n") == 1


def test_the_versions_of_what_jax_needs_on_a_gpu_are_pinned():
    text = (ROOT / "constraints.txt").read_text()
    pinned = dict(re.findall(r"^([\w-]+)==(\S+)", text, re.M))
    assert pinned["jax-cuda13-plugin"] == pinned["jax-cuda13-pjrt"] == pinned["jaxlib"]
    assert {"nvidia-cudnn-cu13", "nvidia-cublas", "nvidia-nccl-cu13"} <= pinned.keys()
