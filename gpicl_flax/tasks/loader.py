"""The Grain loader: one small record for each step: task ids, and example indices, seeds, or the examples themselves.

A record is a pure function of (seed, step). Every process draws the whole step, a few kB, and keeps its own rows. So
the data do not depend on the number of processes or workers that read them, and a resumed run needs only its step
number.
"""

import dataclasses
import os
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
from gpicl_flax.tasks.families.data import Batch, Examples, Sampler
from gpicl_flax.tasks.families.family import TaskFamily

PLACEMENTS = ("auto", "device", "host")
_ENDLESS = 2**40  # steps, more than anyone will train


@gin.configurable
@dataclasses.dataclass(frozen=True)
class Loader:
    """How the examples of a step reach the device.

    Attributes:
      placement: 'device': the base dataset is in the memory of every device, and a step sends indices; 'host': the
        loader gathers the examples; 'auto': on the device if it takes at most a quarter of the free memory. Tasks
        without a base dataset have no examples, so it does not matter for them.
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

    tasks: TaskFamily
    seed: int
    start_step: int = 0


class TrainingBatches(Iterator[Batch]):
    """Endless batches of `steps_per_batch` training steps of a stack of runs. Must be closed.

    A batch holds task_ids [steps_per_batch, S, B] uint32 of the local members and rows. For the same rows it also holds
    what the sampler of the split draws: example_indices [..., T] int32, or, for tasks without a base dataset,
    sequence_seeds [...] uint32. If gathered, it holds inputs [..., T, stored features] and labels [..., T] of the
    split's types in place of the indices.

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
        split: Examples,
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
            split = split.mapped(self._shared.name)
        # A slice keeps the numbers of the records, which determine their random streams.
        records: list[grain.MapDataset[Any]] = [  # zipped records are tuples, which the annotations do not say
            grain.MapDataset.range(2 * _ENDLESS)
            .seed(seed)
            .random_map(_Draw(tasks, split if gather else None, tasks.sampler(split), own))[
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

    tasks: TaskFamily
    split: Examples | None  # the examples to gather from
    sampler: Sampler
    own: slice | np.ndarray

    def __call__(self, step: int, rng: np.random.Generator) -> Batch:
        batch = {"task_ids": self.tasks.training_task_ids(step, rng)}
        batch |= self.sampler(rng, self.tasks.task_batch_size, self.tasks.sequence_length)
        batch = {name: array[self.own] for name, array in batch.items()}
        return batch if self.split is None else self.split.gather(batch)


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
