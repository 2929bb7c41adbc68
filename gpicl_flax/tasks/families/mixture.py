"""A mixture of task families: each task is one of a family that is drawn by weight."""

import dataclasses
import functools
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, ClassVar

import gin
import jax
import jax.numpy as jnp
import numpy as np

from gpicl_flax.bindings.kinds import NotNegative
from gpicl_flax.errors import UsageError
from gpicl_flax.tasks import keys
from gpicl_flax.tasks.datasets.assumed import AssumedExamples
from gpicl_flax.tasks.families.data import Sampler, TaskData
from gpicl_flax.tasks.families.family import Sequences, TaskFamily
from gpicl_flax.tasks.families.mixture_data import MixtureData, MixtureSampler
from gpicl_flax.tasks.mixed_targets import mixed_targets
from gpicl_flax.tasks.targets import Targets

# The settings that a mixture has in the place of its families.
_SHARED = ("task_batch_size", "num_tasks", "sequences_per_task", "validation_share")


@gin.configurable
@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixture(TaskFamily):
    """Tasks of several families. The family of a task is determined by (seed, task id), as the task is.

    A task and its sequences are those that its family has for the same ids and seeds, with inputs padded with zeros to
    the largest X, and C the largest of the families'. All families draw each batch, of which one sequence is kept for
    each task, so drawing takes the sum of their times. At most one of them has a base dataset.

    Attributes:
      families: the families, with one kind of targets and with the T of the mixture. Their B, K and sequences_per_task
        are those of the mixture.
      weights: how often a task is of each family, in proportion; None: equally often.
      sequence_length: T, the examples of one sequence.
      task_batch_size: B, the sequences of one training step.
      num_tasks: K, the tasks of all families together that training draws from, uniformly with replacement; None: every
        sequence has a new one.
      sequences_per_task: sequences of one step that share a task.

    Raises:
      UsageError: a value is out of its range, or the families do not fit together.
    """

    families: Sequence[TaskFamily] = ()
    weights: Sequence[NotNegative] | None = None

    gin_name: ClassVar[str] = "Mixture"

    def __post_init__(self):
        super().__post_init__()
        if not self.families:
            raise UsageError("Mixture.families is empty; name families, such as [@GaussianClasses(), @Recall()]")
        for part in self.families:
            self._check_part(part)
        if sum(part.has_base_datasets for part in self.families) > 1:
            raise UsageError("Mixture.families has several families with a base dataset; leave all but one out")
        object.__setattr__(self, "families", tuple(self.families))  # gin passes lists as they are written
        if self.weights is not None:
            object.__setattr__(self, "weights", tuple(self.weights))
            if len(self.weights) != len(self.families) or not sum(self.weights) > 0:
                raise UsageError(
                    f"Mixture.weights must have a number for each of the {len(self.families)} families, and not only "
                    f"zeros, not {list(self.weights)}"
                )
        mixed_targets(self.labels, [part.targets for part in self.families], self.shares)

    def _check_part(self, part: TaskFamily) -> None:
        """Raises UsageError if a family cannot be a part."""
        name = part.gin_name
        if isinstance(part, Mixture):
            raise UsageError("Mixture.families has a Mixture; name its families instead")
        if part.sequence_length != self.sequence_length:
            raise UsageError(
                f"Mixture.sequence_length = {self.sequence_length}, but sequences of {name} have "
                f"{part.sequence_length} examples; make them equal"
            )
        defaults = {field.name: field.default for field in dataclasses.fields(part)}
        for setting in _SHARED:
            value = getattr(part, setting)
            if value not in (defaults[setting], getattr(self, setting)):
                raise UsageError(
                    f"{name}.{setting} = {value!r} has no effect in a mixture; set Mixture.{setting} instead"
                )

    # What the families are together.

    @functools.cached_property
    def parts(self) -> tuple[TaskFamily, ...]:
        """The families, with B, K and sequences_per_task of the mixture."""
        shared = {name: getattr(self, name) for name in _SHARED}
        return tuple(dataclasses.replace(part, **shared) for part in self.families)

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the families, with a number from 1 on where several have one name."""
        names = [part.gin_name for part in self.parts]
        return tuple(
            name if names.count(name) == 1 else f"{name} {names[: index + 1].count(name)}"
            for index, name in enumerate(names)
        )

    @property
    def shares(self) -> tuple[float, ...]:
        """The weights, divided by their sum."""
        weights = self.weights or [1.0] * len(self.parts)
        return tuple(weight / sum(weights) for weight in weights)

    @property
    def num_features(self) -> int:
        return max(part.num_features for part in self.parts)

    @property
    def targets(self) -> Targets:
        return mixed_targets(self.labels, [part.targets for part in self.parts], self.shares)

    # The base dataset, if a family has one.

    @property
    def _base(self) -> TaskFamily | None:
        return next((part for part in self.parts if part.has_base_datasets), None)

    @property
    def has_base_datasets(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]  # others are fixed
        return self._base is not None

    @property
    def data_name(self) -> str:
        return self._base.data_name if self._base else super().data_name

    @property
    def data_settings(self) -> tuple[Hashable, ...]:
        return tuple(part.data_settings for part in self.parts)

    def load(self, name: str | None = None) -> TaskData:
        return MixtureData(self._base.load(name)) if self._base else super().load(name)

    def sampler(self, split: Any) -> Sampler:
        return MixtureSampler(self._base.sampler(split.examples)) if self._base else super().sampler(split)

    def default_datasets(self, names: Sequence[str]) -> tuple[str, ...]:
        return self._base.default_datasets(names) if self._base else ()

    def drawing(self, data: Any) -> Hashable:
        return tuple(part.drawing(data.base) if part is self._base else None for part in self.parts)

    def assumed_drawing(self) -> Hashable:
        return tuple(part.assumed_drawing() for part in self.parts)

    def assumed_examples(self) -> AssumedExamples:
        return self._base.assumed_examples() if self._base else super().assumed_examples()

    def read_drawing(self, run_info: Mapping[str, Any], folder: str) -> Hashable:
        return tuple(part.read_drawing(run_info, folder) for part in self.parts)

    def check_repeated_tasks(self) -> None:
        for part in self.parts:
            part.check_repeated_tasks()

    def can_replay(self, drawing: Any) -> bool:
        return all(part.can_replay(own) for part, own in zip(self.parts, drawing, strict=True))

    def run_info(self) -> dict[str, Any]:
        return super().run_info() | {"families": dict(zip(self.labels, self.shares, strict=True))}

    def data_run_info(self, data: Any, drawing: Any) -> dict[str, Any]:
        if self._base is None:
            return super().data_run_info(data, drawing)
        return self._base.data_run_info(data.base, drawing[self.parts.index(self._base)])

    # Sequences on the device.

    @property
    def program_settings(self) -> Hashable:
        return type(self), self.sequence_length, self.shares, tuple(part.program_settings for part in self.parts)

    def numbers(self) -> Any:
        """Returns those of each family."""
        return tuple(part.numbers() for part in self.parts)

    def unseen_numbers(self, numbers: Any) -> Any:
        return tuple(part.unseen_numbers(own) for part, own in zip(self.parts, numbers, strict=True))

    def device_data(self, data: Any, drawing: Any) -> Any:
        if self._base is None:
            return ()
        return self._base.device_data(data.base, drawing[self.parts.index(self._base)])

    def abstract_batch(
        self, drawing: Any, on_device: bool, array: Callable[..., Any], rows: Callable[..., Any]
    ) -> tuple[Any, dict[str, tuple[Any, tuple[int, ...]]]]:
        data, batch = super().abstract_batch(None, on_device, array, rows)
        if self._base is None:
            return data, batch
        data, own = self._base.abstract_batch(drawing[self.parts.index(self._base)], on_device, array, rows)
        return data, own | batch

    def drawing_bytes(self, drawing: Any, num_sequences: int) -> int:
        return sum(part.drawing_bytes(own, num_sequences) for part, own in zip(self.parts, drawing, strict=True))

    def part_of(self, seed: jax.Array | np.uint32, task_ids: jax.Array | np.ndarray) -> jax.Array:
        """Returns the number of the family of each task, [B] int32, given its id."""
        key, ends = keys.mixture_key(seed), jnp.cumsum(jnp.array(self.shares[:-1], jnp.float32))
        return jax.vmap(lambda i: (jax.random.uniform(jax.random.fold_in(key, i)) >= ends).sum())(jnp.asarray(task_ids))

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
        # The other entries of a batch are those of the base dataset.
        without_data = {name: batch[name] for name in ("task_ids", "sequence_seeds")}, ()
        made = [
            part.make_sequences(
                own, seed, *((batch, data) if part is self._base else without_data), its_numbers,
                max_bytes=max_bytes, num_shards=num_shards,
            )
            for part, own, its_numbers in zip(self.parts, drawing, numbers, strict=True)
        ]  # fmt: skip
        chosen = self.part_of(seed, batch["task_ids"])

        def choose(arrays: Sequence[jax.Array]) -> jax.Array:
            kept = arrays[0]
            for index, array in enumerate(arrays[1:], 1):
                kept = jnp.where((chosen == index).reshape(-1, *[1] * (array.ndim - 1)), array, kept)
            return kept

        def choose_mask(masks: Sequence[jax.Array | None]) -> jax.Array | None:
            if all(mask is None for mask in masks):
                return None
            everywhere = jnp.ones(made[0].targets.shape, bool)
            return choose([everywhere if mask is None else mask for mask in masks])

        room = [self.num_features - part.num_features for part in self.parts]
        return Sequences(
            choose([jnp.pad(each.inputs, ((0, 0), (0, 0), (0, own))) for each, own in zip(made, room, strict=True)]),
            choose([each.targets for each in made]),
            choose_mask([each.shown for each in made]),
            choose_mask([each.counted for each in made]),
        )
