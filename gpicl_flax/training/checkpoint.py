"""Checkpoints of a run, through Orbax, saved asynchronously.

They hold the state, the loader's position, and the identity of the data and configuration that they belong to.
"""

import contextlib
import gc
import itertools
import json
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers
from orbax.checkpoint._src.serialization import tensorstore_utils

from gpicl_flax.errors import Damaged, GpiclError, StorageError, first_line
from gpicl_flax.records import schemas
from gpicl_flax.records.run_folder import read_json
from gpicl_flax.runtime import distributed, gcs
from gpicl_flax.terminal import library_logs
from gpicl_flax.training.state import TrainState

logger = logging.getLogger(__name__)

# TensorStore, which Orbax writes arrays with, would ask a server that does not answer for 15 minutes: 32 times. Orbax
# has no setting for it. Attempts are 1, 2, 4, ... and at most 32 seconds apart.
_ATTEMPTS = {"gcs_request_retries": {"max_retries": 9, "initial_delay": "1s", "max_delay": "32s"}}
for _context in (tensorstore_utils._BASE_TS_CONTEXT, tensorstore_utils._DEFAULT_OCDBT_TS_CONTEXT):
    _context.update(_ATTEMPTS)
_AWAY = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "ABORTED")  # how TensorStore says so
library_logs.hide_messages_of("orbax")  # a save that fails in the background raises at the next save


class Restored(NamedTuple):
    """A checkpoint: the state, the step to continue from, and the `meta` that was saved with it."""

    state: TrainState
    step: int
    meta: dict[str, Any]


class Checkpoints:
    """The checkpoints/ folder of a run.

    It is a context manager, because errors of a pending save surface at its exit at the latest.

    Args:
      folder: where the checkpoints are.
      keep: how many of the newest checkpoints are kept. None: read only, which does not disturb a run that is training.
      alone: whether only this one of several processes reads them.
    """

    def __init__(self, folder: epath.Path, *, keep: int | None = None, alone: bool = False):
        writing: dict[str, Any] = {} if keep is None else {"preservation_policy": checkpoint_managers.LatestN(keep)}
        if alone:
            me = jax.process_index()
            writing["multiprocessing_options"] = ocp.options.MultiprocessingOptions(
                primary_host=me, active_processes={me}, barrier_sync_key_prefix="alone"
            )
        self._folder, self._keep = folder, keep
        _check_files(folder)
        with library_logs.only_errors():  # Orbax would warn about a folder that is only read
            options = ocp.CheckpointManagerOptions(
                read_only=keep is None,
                create=keep is not None and not alone,
                cleanup_tmp_directories=keep is not None,
                **writing,
            )
            self._manager = ocp.CheckpointManager(folder, options=options, handler_registry=_handlers())

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_):
        with self._saving():
            self._manager.close()

    @property
    def steps(self) -> list[int]:
        """The steps of all checkpoints, ascending."""
        return sorted(self._manager.all_steps())

    @property
    def latest_step(self) -> int | None:
        """The step of the newest checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, step: int, state: TrainState, meta: dict[str, Any]) -> None:
        """Saves in the background, once the previous save has ended. `meta` is plain JSON."""
        meta = {"loader": {"next_step": step}, **meta}
        args = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta))
        with self._saving():
            self._manager.save(step, args=args, force=True)

    def wait(self) -> None:
        """Blocks until the last save is complete."""
        with self._saving():
            self._manager.wait_until_finished()

    def restore(self, state: TrainState) -> Restored:
        """Returns a checkpoint in the shapes and shardings of `state`.

        `state` may be abstract. The checkpoint is the newest readable one. Newer ones are damaged: they are reported
        and, unless this object only reads, renamed to `damaged_<step>`.

        Raises:
          GpiclError: none of them can be read, or one does not fit in memory. Nothing has been renamed then.
        """
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
        restored: Any
        if jax.process_count() == 1:
            restored = self._newest(_state_and_meta(abstract))
        else:
            # The first process searches for all: a restore that failed on one of them would make the others wait.
            step, error = None, ""
            if distributed.is_primary():
                try:
                    with Checkpoints(self._folder, keep=self._keep, alone=True) as alone:
                        alone._newest(_state_and_meta(_on_the_host(abstract)))
                        step = alone.latest_step
                except GpiclError as caught:
                    error = str(caught)
            step, error = json.loads(
                distributed.broadcast(json.dumps([step, error]), "the newest checkpoint that can be read")
            )
            if error:
                raise GpiclError(error)
            self._manager.reload()
            with self._memory_needed(step):
                restored = self._manager.restore(step, args=_state_and_meta(abstract))
        return Restored(restored.state, restored.meta["loader"]["next_step"], restored.meta)

    def meta(self) -> dict[str, Any]:
        """Returns the `meta` saved with the newest checkpoint whose metadata is readable.

        Raises:
          GpiclError: there is none.
        """
        for step in reversed(self.steps):
            with contextlib.suppress(Damaged):
                return read_json(self._folder / str(step) / "meta" / "metadata", schemas.CHECKPOINT_META)
        raise self._unreadable()

    def _newest(self, args: ocp.args.Composite) -> Any:
        """Restores the newest checkpoint that can be read. Afterwards it is the latest."""
        damaged = []
        for step in reversed(self.steps):
            with _without_unraisable_errors():
                try:
                    with self._memory_needed(step):
                        restored: Any = self._manager.restore(step, args=args)
                        schemas.CHECKPOINT_META.check(restored.meta, f"checkpoint {step}")
                except Exception as error:  # several libraries raise here
                    if isinstance(error, GpiclError) and not isinstance(error, Damaged):
                        raise
                    if gcs.is_remote(self._folder) and _says(error, *_AWAY):  # it is not damaged
                        raise _storage_error(self._folder, error) from error
                    logger.warning(
                        "checkpoint %d in %s cannot be read (%s)", step, self._folder, first_line(error)[:200]
                    )
                    damaged.append(step)
                    continue
            if damaged:
                logger.warning("going on from checkpoint %d", step)
                if self._keep is not None:
                    for number in damaged:
                        _move_aside(self._folder, number)
                    self._manager.reload()
            return restored
        raise self._unreadable()

    @contextlib.contextmanager
    def _memory_needed(self, step: int) -> Iterator[None]:
        """Turns a lack of memory, which does not mean that the checkpoint is damaged, into a GpiclError."""
        try:
            yield
        except Exception as error:  # several libraries raise here
            if not _is_want_of_memory(error):
                raise
            raise GpiclError(
                f"no memory to restore checkpoint {step} in {self._folder} ({first_line(error)[:200]}); it was left as "
                "it is: free memory, or spread the state over more devices (MeshShape.fsdp)"
            ) from error

    @contextlib.contextmanager
    def _saving(self) -> Iterator[None]:
        """Turns a full disk, or storage that is away, which show at the next save or at the end, into a GpiclError."""
        try:
            yield
        except Exception as error:  # several libraries raise here
            if gcs.is_remote(self._folder):
                raise _storage_error(self._folder, error) from error
            if not _says(error, "No space left", "Disk quota exceeded"):
                raise
            raise GpiclError(
                f"no space left for a checkpoint in {self._folder}: free some, and start the same command again; it "
                "goes on from the checkpoint before"
            ) from error

    def _unreadable(self) -> GpiclError:
        return GpiclError(
            f"no checkpoint in {self._folder} can be read; were they made by another version? To train from the start, "
            "move the run folder away"
        )


def _storage_error(folder: epath.Path, error: Exception) -> GpiclError:
    """Returns the error to raise where several libraries failed on gs://."""
    ours = next((each for each in _causes(error) if isinstance(each, GpiclError)), None)
    return ours or StorageError(
        f"a checkpoint in {folder} cannot be saved or read ({first_line(error)}): once the storage answers again, "
        "start the same command again, which goes on from the last checkpoint"
    )


def _check_files(folder: epath.Path) -> None:
    """Raises Damaged if there is something else than files and folders, such as a pipe, whose read would not end."""
    if gcs.is_remote(folder) or not folder.exists():
        return
    if not folder.is_dir():
        raise Damaged(f"{folder} is damaged: it is no folder; restore it from a copy")
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            if os.path.exists(path) and not os.path.isfile(path):
                raise Damaged(f"{path} is damaged: it is no regular file; {schemas.CHECKPOINT_META.remedy}")


def _state_and_meta(abstract: TrainState) -> ocp.args.Composite:
    return ocp.args.Composite(state=ocp.args.StandardRestore(abstract), meta=ocp.args.JsonRestore())


def _on_the_host(abstract: TrainState) -> TrainState:
    # The host restores it, because a sharded state may not fit on one accelerator.
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices(backend="cpu")[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), abstract)


def _is_want_of_memory(error: BaseException) -> bool:
    """Returns whether an error, or one of its causes, says that the memory of a host or device is full."""
    return _says(error, "RESOURCE_EXHAUSTED") or any(isinstance(each, MemoryError) for each in _causes(error))


def _says(error: BaseException, *words: str) -> bool:
    """Returns whether an error, or one of its causes, has any of these words."""
    return any(word in str(each) for each in _causes(error) for word in words)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yields an error and what it was raised from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@contextlib.contextmanager
def _without_unraisable_errors() -> Iterator[None]:
    """Hides errors of reads that outlive a failed restore, which would print pages."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        yield
        gc.collect()
    finally:
        sys.unraisablehook = hook


def _move_aside(folder: epath.Path, step: int) -> None:
    """Renames a damaged checkpoint, so that it is neither found again, nor in the way of a new one, nor lost."""
    number = itertools.count(1)
    aside = folder / f"damaged_{step}"
    while aside.exists():
        aside = folder / f"damaged_{step}_{next(number)}"
    (folder / str(step)).rename(aside)


def _handlers() -> ocp.handlers.DefaultCheckpointHandlerRegistry:
    registry = ocp.handlers.DefaultCheckpointHandlerRegistry()
    for item, handler, args in (
        ("state", ocp.StandardCheckpointHandler(), (ocp.args.StandardSave, ocp.args.StandardRestore)),
        ("meta", ocp.JsonCheckpointHandler(), (ocp.args.JsonSave, ocp.args.JsonRestore)),
    ):
        for arg in args:
            registry.add(item, arg, handler)
    return registry
