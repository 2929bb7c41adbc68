"""A learner: the settings and parameters of a run after training, ready for contexts of any task."""

import dataclasses
import functools
import io
import pathlib
from collections.abc import Hashable, Iterable
from typing import Any

import jax
import numpy as np
from etils import epath
from flax import linen as nn
from flax import traverse_util
from packaging.version import InvalidVersion, Version

import gpicl_flax
from gpicl_flax.errors import UsageError, one_line
from gpicl_flax.models.sequence_model import QUERY_KEYS, abstract_parameters, collect_query_key
from gpicl_flax.records.run_folder import PARAMETERS, RunFolder, as_json, write_together
from gpicl_flax.runs import saved_config
from gpicl_flax.runs.run import Run
from gpicl_flax.runtime import caches
from gpicl_flax.tasks import keys
from gpicl_flax.training.checkpoint import Checkpoints
from gpicl_flax.training.partitioning import MeshShape
from gpicl_flax.training.state import abstract_state

SHIPPED = pathlib.Path(__file__).parent / "mnist"  # made by `make learner`


@dataclasses.dataclass(frozen=True, eq=False)
class Learner:
    """A meta-trained model with its parameters.

    Attributes:
      config: the run's configuration, the text of a gin file.
      run_info: its run.json.
      params: those of the model, nested dicts of arrays.
      run: the settings of `config`.
    """

    config: str
    run_info: dict[str, Any]
    params: Any
    run: Run

    def __reduce__(self):  # settings can contain functions, which cannot be pickled
        return _unpickle, (self.config, self.run_info, jax.device_get(self.params))

    @property
    def name(self) -> str:
        """The name of the model."""
        return type(self.run.model).__name__

    @property
    def max_context(self) -> int:
        """The largest number of examples that leave room for a query in the sequences it was trained on."""
        return self.run.tasks.sequence_length - 1

    @property
    def input_rms(self) -> float:
        """The root mean square of the inputs it was trained on."""
        return self.run_info.get("input_rms", 1.0)

    @property
    def reads_context(self) -> bool:
        """Whether it learns from its context at all. A multi-task MLP does not."""
        return self.run.model.state_size(self.run.tasks.num_features, self.run.tasks.sequence_length).exact > 0

    @property
    def drawing(self) -> Hashable:
        """The way its tasks were drawn; raises UsageError if its run.json does not say it."""
        return self.run.tasks.read_drawing(self.run_info, "this learner")

    def forward(self, inputs: np.ndarray, labels: np.ndarray, seed: int = 0) -> tuple[np.ndarray, Any]:
        """Reads sequences, inputs [B, T, X] and labels [B, T].

        Returns:
          The logits [B, T, C], and the queries and keys of the layers.
        """
        with self.run.precision(), caches.kept_programs:
            logits, shown = _forward(self.run.model, self.params, inputs, labels, np.uint32(seed))
        return np.asarray(logits), collect_query_key(shown)

    def encode(self, inputs: np.ndarray, labels: np.ndarray, length: int, seed: int = 0) -> Any:
        """Returns what `answer` needs of contexts of `length` examples, inputs [B, T, X] and labels [B, T]."""
        with self.run.precision(), caches.kept_programs:
            return _encode(self.run.model, self.params, inputs, labels, np.int32(length), np.uint32(seed))

    def answer(self, context: Any, queries: np.ndarray) -> np.ndarray:
        """Returns logits [B, Q, C] of queries [B, Q, X], each as if it alone followed its context."""
        with self.run.precision(), caches.kept_programs:
            return np.asarray(_answer(self.run.model, self.params, context, queries))

    def save(self, folder: RunFolder, dtype: str = "float32") -> None:
        """Writes the files that `load` reads, with parameters rounded to `dtype`: all of them or none."""
        flat: dict[str, Any] = {
            name: np.asarray(x, dtype) for name, x in traverse_util.flatten_dict(self.params, sep="/").items()
        }
        parameters = io.BytesIO()
        np.savez_compressed(parameters, **flat)
        contents = {PARAMETERS: parameters.getvalue(), folder.run_info.name: as_json(self.run_info).encode()}
        write_together(folder.path, contents | {folder.config.name: self.config.encode()})


@functools.partial(jax.jit, static_argnums=0)
def _forward(model, params, inputs, labels, seed):
    rngs = {"learner": keys.learner_key(seed)}
    logits, kept = model.apply({"params": params}, inputs, labels, rngs=rngs, mutable=[QUERY_KEYS])
    return logits, kept.get(QUERY_KEYS, {})


@functools.partial(jax.jit, static_argnums=0)
def _encode(model, params, inputs, labels, length, seed):
    rngs = {"learner": keys.learner_key(seed)}
    return model.apply({"params": params}, inputs, labels, length, rngs=rngs, method="encode")


@functools.partial(jax.jit, static_argnums=0)
def _answer(model, params, context, queries):
    return model.apply({"params": params}, context, queries, method="answer")


def load(path: epath.PathLike | None = None, trusted_modules: Iterable[str] = ()) -> Learner:
    """Returns the learner of a run folder's newest checkpoint, or of a folder that `Learner.save` wrote.

    Args:
      path: the folder; None: the learner in the package.
      trusted_modules: see `saved_config.trusted`.

    Raises:
      UsageError: the folder is no run, holds no checkpoint, comes from a newer version, is damaged, or predicts
        numbers.
      GpiclError: no checkpoint can be read.
    """
    return _load(RunFolder(path), trusted_modules) if path is not None else _shipped()


@functools.cache
def _shipped() -> Learner:
    return _load(RunFolder(SHIPPED))


def _load(folder: RunFolder, trusted_modules: Iterable[str] = ()) -> Learner:
    config = folder.read_config()
    run_info = folder.read_run_info()
    _check_version(folder, run_info)
    run = saved_config.resolve(saved_config.read(folder), str(folder.config), trusted_modules)
    if not run.tasks.targets.num_classes:
        raise UsageError(
            f"{folder} predicts numbers, and a learner predicts classes: `gpicl evaluate` meta-tests the run"
        )
    params = _read_parameters(folder.path / PARAMETERS, run) if folder.is_exported else _restore(folder, run)
    return Learner(config, run_info, jax.device_put(params), run)


def _unpickle(config: str, run_info: dict[str, Any], params: Any) -> Learner:
    # Unpickling runs whatever the pickle holds, so the caller trusts it already, with all the modules that it names.
    saved = saved_config.parse(config, "a pickled learner")
    modules = [each.module for each in saved.parsed_imports]
    run = saved_config.resolve(saved, "a pickled learner", modules)
    return Learner(config, run_info, jax.device_put(params), run)


def _check_version(folder: RunFolder, run_info: dict[str, Any]) -> None:
    try:
        newer = Version(run_info["gpicl_flax"]) > Version(gpicl_flax.__version__)
    except (KeyError, TypeError, InvalidVersion) as error:
        raise UsageError(f"{folder.run_info} does not say which version of gpicl_flax wrote it") from error
    if newer:
        raise UsageError(
            f"{folder} was made by gpicl_flax {run_info['gpicl_flax']}, which is newer than this one, "
            f"{gpicl_flax.__version__}"
        )


def _restore(folder: RunFolder, run: Run) -> Any:
    if not folder.checkpoints.exists():
        raise UsageError(f"{folder} holds no checkpoint yet")
    mesh = MeshShape(data=1).build()  # independent of the mesh it was trained on
    with jax.set_mesh(mesh), Checkpoints(folder.checkpoints) as checkpoints:
        if checkpoints.latest_step is None:
            raise UsageError(f"{folder} holds no checkpoint yet")
        restored = checkpoints.restore(abstract_state(run.model, run.optimizer, run.tasks, mesh=mesh))
    return jax.device_get(restored.state.params)


def _read_parameters(file: epath.Path, run: Run) -> Any:
    try:
        with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as arrays:
            flat = {name: x.astype(np.float32) for name, x in arrays.items()}
    except Exception as error:  # numpy and zipfile raise many kinds
        raise UsageError(f"{file} is damaged ({one_line(error)})") from error
    shapes = nn.unbox(abstract_parameters(run.model, run.tasks.num_features, run.tasks.sequence_length))
    expected: dict[str, Any] = traverse_util.flatten_dict(shapes, sep="/")
    if {name: x.shape for name, x in flat.items()} != {name: x.shape for name, x in expected.items()}:
        raise UsageError(f"{file} does not hold the parameters of the {type(run.model).__name__} in config.gin")
    return traverse_util.unflatten_dict(flat, sep="/")
