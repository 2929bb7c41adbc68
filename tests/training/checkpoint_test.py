"""Damaged checkpoints: whatever file is truncated or missing, what is restored is whole."""

import logging
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpicl_flax.errors import GpiclError
from gpicl_flax.training.checkpoint import Checkpoints
from gpicl_flax.training.state import TrainState


def state_at(step):
    params = {"a": jnp.arange(3000.0) + step, "b": {"c": jax.random.normal(jax.random.key(step), (40, 30))}}
    return TrainState(jnp.int32(step), params, {"mu": jnp.ones(5)}, jnp.float32(step))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints") / "checkpoints"
    with Checkpoints(folder, keep=3) as checkpoints:
        for step in (10, 20):
            checkpoints.save(step, state_at(step), {"data": f"at {step}"})
    return folder


def restore(folder, keep):
    with Checkpoints(folder, keep=keep) as checkpoints:
        state, step, _ = checkpoints.restore(state_at(0))
    jax.tree.map(np.testing.assert_array_equal, state, state_at(step))
    return step


SLOW = [pytest.param(damage, "every", marks=pytest.mark.launch) for damage in ("missing", "empty", "truncated")]


@pytest.mark.parametrize(
    ("damage", "which"), [pytest.param("truncated", "one of each name", marks=pytest.mark.slow), *SLOW]
)
def test_every_kind_of_damage_is_harmless_or_found(saved, tmp_path, damage, which):
    steps = {}
    files = sorted(path.relative_to(saved) for path in (saved / "20").rglob("*") if path.is_file())
    if which != "every":  # files in a folder d hold arrays: the largest stands for them
        arrays = [file for file in files if file.parent.name == "d"]
        largest = max(arrays, key=lambda file: (saved / file).stat().st_size)
        files = [*{file.name: file for file in files if file not in arrays}.values(), largest]
    for number, file in enumerate(files):
        folder = shutil.copytree(saved, tmp_path / str(number))
        whole = (folder / file).read_bytes()
        if damage == "missing":
            (folder / file).unlink()
        else:
            (folder / file).write_bytes(whole[: len(whole) // 2] if damage == "truncated" else b"")
        steps[file] = restore(folder, keep=3)
        assert (folder / "damaged_20").exists() == (steps[file] == 10)
    largest = max(files, key=lambda file: (saved / file).stat().st_size)
    assert steps[largest] == 10 and 20 in steps.values()


@pytest.mark.slow
def test_a_damaged_checkpoint_is_named_and_a_new_one_can_take_its_place(saved, tmp_path, caplog):
    folder = shutil.copytree(saved, tmp_path / "checkpoints")
    (folder / "20" / "meta" / "metadata").unlink()
    with caplog.at_level(logging.WARNING), Checkpoints(folder) as checkpoints:  # who only reads, moves nothing
        assert checkpoints.restore(state_at(0))[1] == 10 and checkpoints.meta()["data"] == "at 10"
    assert (folder / "20").exists()
    messages = [record.getMessage() for record in caplog.records if record.name.startswith("gpicl_flax")]
    assert "checkpoint 20 in" in messages[0] and messages[1] == "going on from checkpoint 10"
    with Checkpoints(folder, keep=3) as checkpoints:
        checkpoints.restore(state_at(0))
        checkpoints.save(20, state_at(20), {"data": "again"})
    assert restore(folder, keep=None) == 20 and (folder / "damaged_20").exists()


def test_nothing_is_moved_where_nothing_can_be_read(saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "checkpoints")
    for step in ("10", "20"):
        (folder / step / "state" / "manifest.ocdbt").unlink()
    with Checkpoints(folder, keep=3) as checkpoints, pytest.raises(GpiclError, match="no checkpoint in .* can be read"):
        checkpoints.restore(state_at(0))
    assert {path.name for path in folder.iterdir()} == {"10", "20"}


@pytest.mark.parametrize(
    "error",
    [MemoryError(), jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\na page")],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_want_of_memory_is_not_taken_for_damage(saved, tmp_path, monkeypatch, caplog, error, wrapped):
    folder = shutil.copytree(saved, tmp_path / "checkpoints")

    def restore(*_, **__):
        if wrapped:
            raise ValueError("could not read an array") from error
        raise error

    with Checkpoints(folder, keep=3) as checkpoints:
        monkeypatch.setattr(checkpoints._manager, "restore", restore)
        with pytest.raises(GpiclError, match="no memory to restore checkpoint 20 in") as caught:
            checkpoints.restore(state_at(0))
    assert "\n" not in str(caught.value) and "cannot be read" not in caplog.text
    assert {path.name for path in folder.iterdir()} == {"10", "20"}
