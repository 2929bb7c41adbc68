import os
import pathlib
import subprocess
import sys

import jax
import pytest

from gpicl_flax.runtime import caches


@pytest.fixture
def environment(tmp_path):
    """Of a process whose caches are in tmp_path, where nobody has said where JAX's is."""
    environment = dict(os.environ) | {"XDG_CACHE_HOME": str(tmp_path)}
    del environment["JAX_COMPILATION_CACHE_DIR"]
    return environment


def test_caches_are_where_the_user_keeps_them(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert caches.folder() == tmp_path / "gpicl_flax"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert caches.folder() == pathlib.Path("~/.cache/gpicl_flax").expanduser()


def test_a_folder_that_is_named_already_wins(monkeypatch):
    for value in ("/some/where", "gs://bucket/folder", ""):
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", value)
        caches.keep_compiled_programs()
        assert os.environ["JAX_COMPILATION_CACHE_DIR"] == value


def test_without_a_place_to_keep_them_programs_are_not_kept(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    caches.keep_compiled_programs()
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ


def test_another_processor_has_another_folder(monkeypatch):
    here = caches._processor()
    assert caches._processor() == here
    monkeypatch.setattr(caches.platform, "machine", lambda: "another")
    assert caches._processor.__wrapped__() != here


LIBRARY = """
import jax
import numpy as np
from gpicl_flax import InContextClassifier
X = np.random.default_rng(0).normal(size=(9, 2))
InContextClassifier(n_estimators=1, random_state=0).fit(X, np.arange(9) % 2).predict(X)
jax.jit(lambda x: x * 17.5 + 3).lower(1.0).compile()  # a program of the user
"""


@pytest.mark.slow
def test_the_library_keeps_its_programs_and_no_others(tmp_path, environment):
    environment = {name: value for name, value in environment.items() if not name.startswith("JAX_PERSISTENT")}
    subprocess.run([sys.executable, "-W", "error", "-c", LIBRARY], env=environment, check=True)
    kept = {path.name.split("-")[0] for path in (tmp_path / "gpicl_flax" / "xla").rglob("*-cache")}
    assert {"jit__answer", "jit__encode"} <= kept and not any("lambda" in name for name in kept)


def test_settings_of_jax_are_left_as_they_were(monkeypatch, tmp_path):
    name = "jax_compilation_cache_dir"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    before = getattr(jax.config, name)
    try:
        jax.config.update(name, None)
        with caches.kept_programs:
            with caches.kept_programs:  # of another thread
                pass
            assert getattr(jax.config, name).startswith(str(tmp_path))
        assert getattr(jax.config, name) is None
        for value in ("", "/some/where"):  # what a user says, also by the environment of the process
            monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", value)
            with caches.kept_programs:
                assert getattr(jax.config, name) is None
        monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
        jax.config.update(name, "/some/where")
        with caches.kept_programs:
            assert getattr(jax.config, name) == "/some/where"
        jax.config.update(name, None)
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
        with caches.kept_programs:
            assert getattr(jax.config, name) is None
    finally:
        jax.config.update(name, before)


@pytest.mark.launch
def test_a_command_keeps_what_it_compiles_and_finds_it_again(tmp_path, environment, small_bindings):
    def run(folder):
        bindings = [*small_bindings, "Run.model = @LSTM()", "LSTM.hidden_size = 8", "Training.steps = 4",
                    "Training.steps_per_dispatch = 2", "Training.checkpoint_period = 4"]  # fmt: skip
        arguments = ["train", "--gin_file", "gin/base.gin", "--workdir", str(tmp_path / folder)]
        command = [
            sys.executable,
            "-m",
            "gpicl_flax",
            *arguments,
            *(f"--gin_bindings={binding}" for binding in bindings),
        ]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        return {path.name for path in (tmp_path / "gpicl_flax" / "xla").rglob("*-cache")}

    first = run("one")
    assert any("train_steps" in name for name in first)
    assert run("two") == first
    assert (tmp_path / "one" / "metrics.jsonl").read_bytes() == (tmp_path / "two" / "metrics.jsonl").read_bytes()
