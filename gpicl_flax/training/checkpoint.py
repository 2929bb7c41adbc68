"""Checkpoints of a run, through Orbax: the state, the loader's position and what it belongs to, saved asynchronously."""

from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers

from gpicl_flax.errors import GpiclError, first_line
from gpicl_flax.training.state import TrainState


class Checkpoints:
    """The checkpoints/ folder of a run; a context manager, since errors of a pending save surface at the latest then.

    Args:
      folder: where the checkpoints are.
      keep: newest checkpoints that are kept; None: only read, which leaves a run that is being trained alone.
    """

    def __init__(self, folder: epath.Path, *, keep: int | None = None):
        writing = {} if keep is None else {"preservation_policy": checkpoint_managers.LatestN(keep)}
        options = ocp.CheckpointManagerOptions(
            read_only=keep is None, create=keep is not None, cleanup_tmp_directories=keep is not None, **writing
        )
        self._manager = ocp.CheckpointManager(folder, options=options, handler_registry=_handlers())

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_):
        self._manager.close()

    @property
    def latest_step(self) -> int | None:
        """The step of the newest checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, step: int, state: TrainState, meta: dict[str, Any]) -> None:
        """Saves in the background, once the previous save has ended; `meta` is plain JSON."""
        meta = {"loader": {"next_step": step}, **meta}
        args = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta))
        self._manager.save(step, args=args, force=True)

    def wait(self) -> None:
        """Returns when the last save is complete."""
        self._manager.wait_until_finished()

    def restore(self, state: TrainState) -> tuple[TrainState, int]:
        """The newest checkpoint in the shapes and shardings of `state`, which may be abstract, and the step to go on from.

        Raises:
          GpiclError: it is damaged.
        """
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
        restored = self._restore(state=ocp.args.StandardRestore(abstract), meta=ocp.args.JsonRestore())
        return restored.state, restored.meta["loader"]["next_step"]

    def meta(self) -> dict[str, Any]:
        """What the newest checkpoint was given as `meta`; raises GpiclError if it is damaged."""
        return self._restore(meta=ocp.args.JsonRestore()).meta

    def _restore(self, **items: ocp.args.CheckpointArgs) -> ocp.args.Composite:
        try:
            return self._manager.restore(self.latest_step, args=ocp.args.Composite(**items))
        except (ValueError, KeyError, OSError) as error:
            raise GpiclError(
                f"checkpoint {self.latest_step} in {self._manager.directory} cannot be read ({first_line(error)}); move it "
                "away to go on from the one before"
            ) from error


def _handlers() -> ocp.handlers.DefaultCheckpointHandlerRegistry:
    registry = ocp.handlers.DefaultCheckpointHandlerRegistry()
    for item, handler, args in (
        ("state", ocp.StandardCheckpointHandler(), (ocp.args.StandardSave, ocp.args.StandardRestore)),
        ("meta", ocp.JsonCheckpointHandler(), (ocp.args.JsonSave, ocp.args.JsonRestore)),
    ):
        for arg in args:
            registry.add(item, arg, handler)
    return registry
