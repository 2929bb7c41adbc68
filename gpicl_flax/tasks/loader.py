"""The Grain loader: one small record for each step, with task ids and example indices, or the examples themselves.

A record is a pure function of (seed, step). Every process draws the whole step, a few kB, and keeps its own rows. So
the data do not depend on the number of processes or workers that read them, and a resumed run needs only its step
number.
"""

import dataclasses
import os
import pathlib
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, NamedTuple

import gin
import grain
import numpy as np

from gpicl_flax.bindings.kinds import Range, check_settings
from gpicl_flax.errors import GpiclError, UsageError, first_line
from gpicl_flax.tasks.datasets.base_dataset import Split
from gpicl_flax.tasks.distribution import TaskDistribution

Batch = dict[str, np.ndarray]

PLACEMENTS = ("auto", "device", "host")
_ENDLESS = 2**40  # steps, more than anyone will train


@gin.configurable
@dataclasses.dataclass(frozen=True)
class Loader:
    """How the examples of a step reach the device.

    Attributes:
      placement: 'device': the base dataset is in the memory of every device, and a step sends indices; 'host': the
        loader gathers the examples; 'auto': on the device if it takes at most a quarter of the free memory.
      num_workers: processes that draw and gather; 0: a thread of this process, which is enough for indices.

    Raises:
      UsageError: a value is out of its range.
    """

    placement: str = "auto"
    num_workers: Annotated[int, Range(0, 1024)] = 0

    def __post_init__(self):
        check_settings(self)
        if self.placement not in PLACEMENTS:
            raise UsageError(f"Loader.placement must be one of {', '.join(PLACEMENTS)}, not {self.placement!r}")


class Stream(NamedTuple):
    """The random stream of one run: its tasks, its seed, and the step that it starts from."""

    tasks: TaskDistribution
    seed: int
    start_step: int = 0


class TrainingBatches(Iterator[Batch]):
    """Endless batches of `steps_per_batch` training steps of a stack of runs. Must be closed.

    A batch holds task_ids [steps_per_batch, S, B] uint32 of the local members and rows. For the same rows it also holds
    either example_indices [..., T] int32 or, if gathered, inputs [..., T, stored features] and labels [..., T] of the
    split's types.

    Args:
      streams: those of the runs; they agree in B and T.
      split: the examples that are drawn from.
      gather: include the examples instead of their indices.
      num_workers: processes that draw; 0: a thread of this process.
      local_members, local_rows: the indices, in order, of the streams and of the sequences of each that this process
        keeps; None: all.
    """

    def __init__(
        self,
        streams: Sequence[Stream],
        split: Split,
        *,
        gather: bool = False,
        steps_per_batch: int = 1,
        num_workers: int = 0,
        local_members: np.ndarray | None = None,
        local_rows: np.ndarray | None = None,
    ):
        own = slice(None) if local_rows is None else local_rows
        streams = streams if local_members is None else [streams[index] for index in local_members]
        self._shared = tempfile.TemporaryDirectory(prefix="gpicl_flax_") if gather and num_workers else None
        if self._shared:
            split = dataclasses.replace(split, inputs=_MappedArray(split.inputs, self._shared.name))
        # A slice keeps the numbers of the records, which determine their random streams.
        records: list[grain.MapDataset[Any]] = [  # zipped records are tuples, which the annotations do not say
            grain.MapDataset.range(2 * _ENDLESS)
            .seed(seed)
            .random_map(_Draw(tasks, split if gather else None, len(split), split.group_size, own))[
                start_step : start_step + _ENDLESS
            ]
            for tasks, seed, start_step in streams
        ]
        stacks = grain.experimental.ZipMapDataset(records).map(_stack)
        # Records are cheap to draw: one thread and a short buffer are faster than any step.
        batches = stacks.batch(steps_per_batch).to_iter_dataset(
            grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)
        )
        if num_workers:
            _mark_flags_as_parsed()
            options = grain.MultiprocessingOptions(num_workers=num_workers, per_worker_buffer_size=2)
            batches = batches.mp_prefetch(options, worker_init_fn=_begin_worker)
        self._iterator = iter(batches)

    def __next__(self) -> Batch:
        try:
            return next(self._iterator)
        except RuntimeError as error:  # Grain raises it for a worker that has died
            raise GpiclError(f"a worker of the loader ended ({first_line(error)}); is there enough memory?") from error

    def close(self) -> None:
        """Ends the workers."""
        self._iterator.close()
        if self._shared:
            self._shared.cleanup()


def _stack(records: Sequence[Batch]) -> Batch:
    return {name: np.stack([record[name] for record in records]) for name in records[0]}


@dataclasses.dataclass
class _Draw:
    """Maps a step and its random stream to a record. It is a class, because workers are sent a pickled one."""

    tasks: TaskDistribution
    split: Split | None  # the examples to gather from
    num_examples: int
    group_size: int | None
    own: slice | np.ndarray

    def __call__(self, step: int, rng: np.random.Generator) -> Batch:
        task_ids = self.tasks.training_task_ids(step, rng)
        size = self.tasks.task_batch_size, self.tasks.sequence_length
        indices = draw_example_indices(rng, *size, self.num_examples, self.group_size)
        batch = {"task_ids": task_ids[self.own], "example_indices": indices[self.own]}
        return batch if self.split is None else gather(self.split, batch)


def gather(split: Split, batch: Batch) -> Batch:
    """Returns a batch with inputs [..., T, X] and labels [..., T] in place of its example_indices [..., T]."""
    indices = batch["example_indices"]
    rest = {name: array for name, array in batch.items() if name != "example_indices"}
    return rest | {"inputs": split.inputs[indices], "labels": split.labels[indices]}


def draw_example_indices(
    rng: np.random.Generator, num_sequences: int, length: int, num_examples: int, group_size: int | None = None
) -> np.ndarray:
    """Returns example indices [num_sequences, length] int32.

    They are uniform without replacement within a sequence. With a group size, each sequence draws a group of neighbours
    and then, uniformly with replacement, examples of this group.
    """
    if group_size is not None:
        groups = rng.integers(num_examples // group_size, size=(num_sequences, 1), dtype=np.int32)
        return groups * group_size + rng.integers(group_size, size=(num_sequences, length), dtype=np.int32)
    if length**2 > 4 * num_examples:  # almost every sequence would have repetitions, so shuffle instead
        keys = rng.random((num_sequences, num_examples))
        chosen = np.argpartition(keys, length - 1, axis=1)[:, :length]
        return rng.permuted(chosen, axis=1).astype(np.int32)
    indices = rng.integers(num_examples, size=(num_sequences, length), dtype=np.int32)
    rows = np.arange(num_sequences)
    while True:  # redraw sequences that have a repetition
        ordered = np.sort(indices[rows], axis=1)
        rows = rows[(ordered[:, 1:] == ordered[:, :-1]).any(axis=1)]
        if not len(rows):
            return indices
        indices[rows] = rng.integers(num_examples, size=(len(rows), length), dtype=np.int32)


class _MappedArray:
    """An array in a file. A worker that receives it maps the file into its memory, which all workers share."""

    def __init__(self, array: np.ndarray, folder: str):
        self._path = str(pathlib.Path(folder) / "inputs.npy")
        np.save(self._path, array)
        self._array = array

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        return self._array[indices]

    def __len__(self) -> int:
        return len(self._array)

    def __getstate__(self):
        return self._path

    def __setstate__(self, path: str):
        self._path, self._array = path, np.load(path, mmap_mode="r", allow_pickle=False)


def _begin_worker(index: int, count: int) -> None:
    """Lets a worker ignore Ctrl-C, which its parent handles, and end when the parent is gone, even if it was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = os.getppid()

    def watch():
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _mark_flags_as_parsed() -> None:
    """Marks absl's flags as parsed, which Grain's workers read. Otherwise only programs run by absl.app parse them."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
