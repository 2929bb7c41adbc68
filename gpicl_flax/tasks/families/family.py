"""The interface of task families: what tasks are, how one is drawn, and which of them are seen and unseen."""

import dataclasses
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gpicl_flax.bindings.kinds import Count, Range, Width, check_settings
from gpicl_flax.errors import UsageError
from gpicl_flax.tasks import keys
from gpicl_flax.tasks.datasets.assumed import AssumedExamples
from gpicl_flax.tasks.families.data import NoData, Sampler, TaskData
from gpicl_flax.tasks.targets import Targets

# Training draws ids below this one. Ids from here on are never trained on, for any number of tasks.
FIRST_UNSEEN_ID = 2**31
# Of these, the ids from here on are those of validation.
FIRST_VALIDATION_ID = 3 * 2**30


class Sequences(NamedTuple):
    """Sequences of tasks, or, without the axis B, a single one.

    Attributes:
      inputs: [B, T, X] float32.
      targets: [B, T], int32 classes or float32 numbers.
      shown: [B, T] bool, whether later tokens show the target; None: all of them do.
      counted: [B, T] bool, the positions that loss and metrics count, at least one in a sequence; None: all.
    """

    inputs: jax.Array
    targets: jax.Array
    shown: jax.Array | None = None
    counted: jax.Array | None = None

    def shown_targets(self, targets: jax.Array) -> jax.Array:
        """Returns targets [B, T] as tokens show them.

        A hidden class is -1, whose one-hot vector is zero; a hidden number is 0.
        """
        if self.shown is None:
            return targets
        return jnp.where(self.shown, targets, -1 if jnp.issubdtype(targets.dtype, jnp.integer) else 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskFamily:
    """A distribution of tasks. A task depends on (seed, task id) alone, a sequence also on its own seed.

    A family of your own has settings, `num_features`, `targets`, `draw_task` and `draw_sequence`; docs/extending.md has
    one. The other methods are for families with a base dataset.

    Attributes:
      sequence_length: T, the examples of one sequence.
      task_batch_size: B, the sequences of one training step.
      num_tasks: K, the tasks that training draws from, uniformly with replacement; None: every sequence has a new one.
      sequences_per_task: sequences of one step that share a task.
      validation_share: if set, diagnostics and meta-tests are those of validation, by which settings can be chosen.
        Their unseen tasks have ids of their own. Where there is a base dataset, they draw this share of its training
        split, which training leaves out, and the test split is not read.

    Raises:
      UsageError: a value is out of its range.
    """

    sequence_length: Width = 100
    task_batch_size: Width = 128
    num_tasks: int | None = None
    sequences_per_task: Count = 1
    validation_share: Annotated[float, Range(0, 1)] | None = None

    # The name of the family in gin files.
    gin_name: ClassVar[str]
    # The numbers that members of a stack may differ in. The number of tasks changes only which ids are drawn; others
    # have to reach programs through `numbers`.
    member_settings: ClassVar[tuple[str, ...]] = ("num_tasks",)
    # The settings that do not change a training program.
    host_settings: ClassVar[tuple[str, ...]] = ("num_tasks", "validation_share")
    # The properties of `Curriculum` that these tasks have.
    curricula: ClassVar[tuple[str, ...]] = ("sequence_length",)
    # Whether `MetaTest.base_datasets` can name data to test on.
    has_base_datasets: ClassVar[bool] = False

    def __init_subclass__(cls, **settings: Any):
        super().__init_subclass__(**settings)
        if "gin_name" not in vars(cls):
            cls.gin_name = cls.__name__

    def __post_init__(self):
        check_settings(self, self.gin_name)
        if self.num_tasks is not None and not 1 <= self.num_tasks <= FIRST_UNSEEN_ID:
            raise UsageError(f"{self.gin_name}.num_tasks must be None or in 1..2**31, not {self.num_tasks}")
        if self.task_batch_size % self.sequences_per_task:
            raise UsageError(
                f"{self.gin_name}.task_batch_size = {self.task_batch_size} is not a multiple of "
                f"sequences_per_task = {self.sequences_per_task}"
            )
        if self.validation_share in (0, 1):
            raise UsageError(f"{self.gin_name}.validation_share must be between 0 and 1, not {self.validation_share}")

    # What a family is.

    @property
    def num_features(self) -> int:
        """X, the number of input features of one example."""
        raise NotImplementedError

    @property
    def targets(self) -> Targets:
        """The kind of targets, with what is needed for their chance loss."""
        raise NotImplementedError

    def draw_task(self, key: jax.Array) -> Any:
        """Returns the task of a key, a pytree of arrays. Called inside a program."""
        raise NotImplementedError

    def make_task(self, seed: jax.Array | np.uint32, task_id: jax.Array) -> Any:
        """Returns the task of an id, under the seed of the run. Called inside a program."""
        return self.draw_task(jax.random.fold_in(keys.task_key(seed), task_id))

    def draw_sequence(self, task: Any, key: jax.Array) -> Sequences:
        """Returns one sequence of a task: inputs [T, X], targets [T]. Called inside a program."""
        raise NotImplementedError

    # The ids of tasks.

    def training_task_ids(self, step: int, rng: np.random.Generator) -> np.ndarray:
        """Returns task ids [B] uint32 of training step `step`. If the tasks are unbounded, they are simply numbered."""
        num_drawn = self.task_batch_size // self.sequences_per_task
        if self.num_tasks is None:
            ids = np.arange(step * num_drawn, (step + 1) * num_drawn)
        else:
            ids = rng.integers(self.num_tasks, size=num_drawn)
        return np.repeat(ids, self.sequences_per_task).astype(np.uint32)

    def seen_task_ids(self, count: int) -> np.ndarray:
        """Returns ids [count] uint32 that replay seen tasks: 0..min(count, K)-1, repeatedly."""
        return (np.arange(count) % (self.num_tasks or count)).astype(np.uint32)

    def unseen_task_ids(self, count: int) -> np.ndarray:
        """Returns ids [count] uint32 that no training run draws. Those of validation are never those of a test."""
        first = FIRST_UNSEEN_ID if self.validation_share is None else FIRST_VALIDATION_ID
        return (first + np.arange(count)).astype(np.uint32)

    # The data that tasks are made from, and what they determine: `drawing`, the way in which tasks are drawn.

    @property
    def data_name(self) -> str:
        """The name of the data that training uses."""
        return re.sub(r"(?<!^)(?=[A-Z])", "_", self.gin_name).lower()

    @property
    def data_settings(self) -> tuple[Hashable, ...]:
        """The settings that `load` and `sampler` depend on."""
        return ()

    def load(self, name: str | None = None) -> TaskData:
        """Returns the data of that name, by default those trained on."""
        return NoData(name or self.data_name)

    def sampler(self, split: Any) -> Sampler:
        """Returns what draws from a split of the data, in training and in meta-tests."""
        return split.sampler

    def default_datasets(self, names: Sequence[str]) -> tuple[str, ...]:
        """Returns the base datasets among `names` that have to be where TFDS keeps them by default."""
        return ()

    def drawing(self, data: Any) -> Hashable:
        """Returns how tasks are drawn, as far as the data that are trained on determine it."""
        return None

    def assumed_drawing(self) -> Hashable:
        """Returns how tasks are probably drawn, without reading any data."""
        return None

    def assumed_examples(self) -> AssumedExamples:
        """Returns the probable training examples, without reading any data."""
        return AssumedExamples()

    def read_drawing(self, run_info: Mapping[str, Any], folder: str) -> Hashable:
        """Returns how a run drew its tasks.

        Args:
          run_info: its run.json.
          folder: what messages call its folder.
        """
        return None

    def check_repeated_tasks(self) -> None:
        """Raises UsageError if the sequences of a meta-test cannot share tasks."""

    def can_replay(self, drawing: Any) -> bool:
        """Returns whether a seen task can have another sequence."""
        return True

    def run_info(self) -> dict[str, Any]:
        """Returns the entries of run.json that describe the tasks."""
        return {
            "family": self.gin_name,
            **self.targets.as_run_info(),
            "sequence_length": self.sequence_length,
            "task_batch_size": self.task_batch_size,
            "num_tasks": self.num_tasks,
            **self.validation_run_info(),
        }

    def validation_run_info(self) -> dict[str, Any]:
        """Returns the entry of run.json about validation; none where there is no validation."""
        return {} if self.validation_share is None else {"validation_share": self.validation_share}

    def data_run_info(self, data: Any, drawing: Any) -> dict[str, Any]:
        """Returns the entries of run.json that describe the data."""
        return {"base_dataset": {"name": data.name, "fingerprint": data.fingerprint}}

    # Sequences on the device.

    @property
    def program_settings(self) -> Hashable:
        """The settings that the program of `make_sequences` depends on, besides the drawing."""
        elsewhere = (*self.member_settings, "validation_share")  # which changes the data alone
        own = (field.name for field in dataclasses.fields(self) if field.name not in elsewhere)
        return type(self), tuple((name, getattr(self, name)) for name in own)

    def numbers(self) -> Any:
        """Returns the `member_settings` that programs read, a pytree of numbers."""
        return ()

    def unseen_numbers(self, numbers: Any) -> Any:
        """Returns the same for unseen tasks."""
        return numbers

    def device_data(self, data: Any, drawing: Any) -> Any:
        """Returns what programs read of the data besides examples, a pytree of arrays."""
        return ()

    def abstract_batch(
        self, drawing: Any, on_device: bool, array: Callable[..., Any], rows: Callable[..., Any]
    ) -> tuple[Any, dict[str, tuple[Any, tuple[int, ...]]]]:
        """Returns the shapes that a training program reads, without reading any data.

        Args:
          drawing: how tasks are drawn.
          on_device: whether examples are in device memory.
          array, rows: return what stands for an array of a type and shape; `rows`: whose rows are gathered.

        Returns:
          The `device_data` with examples, and for each entry of a batch besides task_ids its type and its shape after
          the axes [steps, S, B].
        """
        return (), {"sequence_seeds": (jnp.uint32, ())}

    def drawing_bytes(self, drawing: Any, num_sequences: int) -> int:
        """Returns the memory in bytes that drawing this many tasks at once takes, besides the sequences."""
        return 0

    def make_sequences(
        self,
        drawing: Any,
        seed: jax.Array | np.uint32,
        batch: Mapping[str, Any],
        data: Any,
        numbers: Any,
        *,
        max_bytes: int,
        num_shards: int,
    ) -> Sequences:
        """Returns the sequences of a batch. Called inside a program.

        Args:
          drawing: how tasks are drawn.
          seed: the seed of the run, uint32.
          batch: task_ids [B], and what the sampler draws for each sequence. `draw_sequence` is given whatever that is
            besides a seed, by its name.
          data: `device_data`, with examples where they are on the devices.
          numbers: those of the run, see `numbers`.
          max_bytes: the memory that tasks may take on each device at once.
          num_shards: the number of devices along B, which divides B.

        Raises:
          UsageError: `draw_sequence` returns something else than sequences of this family.
        """
        sequence_key = keys.sequence_key(seed)

        def one(task_ids: jax.Array, sequence_seeds: jax.Array, **given: jax.Array) -> Sequences:
            task = self.make_task(seed, task_ids)
            return self.draw_sequence(task, jax.random.fold_in(sequence_key, sequence_seeds), **given)

        sequences = jax.vmap(lambda own: one(**own))(dict(batch))
        self._check(sequences)
        return sequences

    def _check(self, sequences: Sequences) -> None:
        """Raises UsageError unless `draw_sequence` returns what it should."""
        inputs, targets, *masks = sequences
        shape = self.sequence_length, self.num_features
        kind = jnp.int32 if self.targets.num_classes else jnp.float32
        if inputs.shape[1:] != shape or targets.shape[1:] != shape[:1] or targets.dtype != kind:
            raise UsageError(
                f"{self.gin_name}.draw_sequence must return inputs {list(shape)} and targets {list(shape[:1])} of type "
                f"{jnp.dtype(kind).name}, not {list(inputs.shape[1:])} and {list(targets.shape[1:])} of type "
                f"{targets.dtype.name}"
            )
        for mask in masks:
            if mask is not None and (mask.shape[1:] != shape[:1] or mask.dtype != bool):
                raise UsageError(f"{self.gin_name}.draw_sequence must return `shown` and `counted` [T] of type bool")
