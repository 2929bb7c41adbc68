"""The paper's tasks: a random projection of the inputs of a base dataset, and a permutation of its labels."""

import dataclasses
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Annotated, Any, ClassVar

import gin
import jax
import jax.numpy as jnp
import numpy as np

from gpicl_flax.bindings.kinds import Range, Width
from gpicl_flax.errors import UsageError
from gpicl_flax.tasks import keys
from gpicl_flax.tasks.augmentation import Augmentation
from gpicl_flax.tasks.class_distribution import replace_labels
from gpicl_flax.tasks.datasets.assumed import AssumedExamples, assumed_examples
from gpicl_flax.tasks.datasets.base_dataset import BaseDataset, Split, load_base_dataset
from gpicl_flax.tasks.datasets.class_sampler import ClassSampler, RandomLabels
from gpicl_flax.tasks.datasets.sampler import ExampleSampler
from gpicl_flax.tasks.datasets.variation import scale_variation
from gpicl_flax.tasks.families.class_axes import ClassAxes
from gpicl_flax.tasks.families.data import Batch
from gpicl_flax.tasks.families.device_data import DeviceData
from gpicl_flax.tasks.families.family import Sequences
from gpicl_flax.tasks.projections import spec
from gpicl_flax.tasks.projections.spec import ProjectionSpec
from gpicl_flax.tasks.targets import Classes

_FEATURES = ("linear", "fourier")
_MOST_INPUTS = 2**20  # of an example; its projection has their square


@gin.configurable("TaskDistribution")  # pyright: ignore[reportCallIssue]  # its annotation knows no names
@dataclasses.dataclass(frozen=True)
class ProjectedImages(ClassAxes):
    """Tasks made from one base dataset by a random projection of the inputs and a permutation of the labels.

    In gin files it is `TaskDistribution`. Its drawing is a `ProjectionSpec`, its data is a `BaseDataset`.

    Attributes:
      base_dataset: a name that `gpicl datasets list` shows or that TFDS has, or a path (see `sources.load`).
      data_dir: where TFDS keeps prepared datasets; None for its own default.
      input_shape: (height, width, channels) that images are resized to, or (features,) for a dataset of features; X is
        their product.
      num_classes: C.
      sequence_length: T, the examples of one sequence (N_D in the paper).
      task_batch_size: B, the sequences of one training step.
      num_tasks: K, the tasks that training draws from, uniformly with replacement; None: every sequence has a new one.
      permute_labels_prob: p, the probability that a task permutes its labels. The other tasks, a fraction of 1 - p ("1
        - p biased"), keep them (Section 4.3 and Fig 9).
      sequences_per_task: sequences of one step that share a task.
      validation_share: see `TaskFamily`.
      normalize: subtract the mean and divide by the standard deviation of the base dataset's training split; if False,
        grey values are only scaled to [0, 1] (Fig 4).
      projection: how projections are drawn, one of `spec.KINDS` or 'auto' (see `spec.choose`). All of them have the
        same distribution, and 'dense' and 'span' give the same tasks.
      burstiness, zipf_exponent, label_noise, query_only: see `ClassAxes`. With the first or the second, classes are
        drawn before examples, so that they do not have the frequencies of the base dataset.
      fixed_labels: the share of the classes whose label no task moves; the others are permuted among themselves.
      within_class_variation: v; an example is m + v (x - m), where m is the mean of its class in the split.
      features: 'linear': x_t is the projected input; 'fourier': it has random Fourier features of it, whose width is
        drawn for each task (see `projections.fourier`).

    Raises:
      UsageError: a value is out of its range.
    """

    base_dataset: str = "mnist"
    data_dir: str | None = None
    input_shape: tuple[Width, ...] = (14, 14, 1)
    num_classes: Width = 10
    num_tasks: int | None = dataclasses.field(default=2**25, kw_only=True)
    permute_labels_prob: Annotated[float, Range(0, 1)] = 0.1
    normalize: bool = True
    projection: str = "auto"
    within_class_variation: Annotated[float, Range(0, 1)] = 1.0
    features: str = "linear"

    gin_name: ClassVar[str] = "TaskDistribution"
    member_settings: ClassVar[tuple[str, ...]] = ("num_tasks", "permute_labels_prob")
    host_settings: ClassVar[tuple[str, ...]] = (
        "base_dataset", "data_dir", "num_tasks", "validation_share", "burstiness", "zipf_exponent",
    )  # fmt: skip
    curricula: ClassVar[tuple[str, ...]] = ("sequence_length", "num_classes", "permute_labels_prob")
    has_base_datasets: ClassVar[bool] = True

    def __post_init__(self):
        super().__post_init__()
        if self.projection not in ("auto", *spec.KINDS):
            names = ", ".join(("auto", *spec.KINDS))
            raise UsageError(f"TaskDistribution.projection must be one of {names}, not {self.projection!r}")
        if self.features not in _FEATURES:
            raise UsageError(f"TaskDistribution.features must be one of {', '.join(_FEATURES)}, not {self.features!r}")
        if len(self.input_shape) not in (1, 3):
            raise UsageError(
                f"TaskDistribution.input_shape must be (height, width, channels) or (features,), not {self.input_shape}"
            )
        if math.prod(self.input_shape) > _MOST_INPUTS:
            raise UsageError(f"TaskDistribution.input_shape = {self.input_shape} has more than {_MOST_INPUTS:,} inputs")
        object.__setattr__(self, "input_shape", tuple(self.input_shape))  # gin passes lists as they are written
        self.projection_spec(self.input_shape)

    @property
    def num_features(self) -> int:
        return math.prod(self.input_shape)

    @property
    def targets(self) -> Classes:
        return Classes(self.num_classes)

    # The base dataset and the projections for it.

    @property
    def data_name(self) -> str:
        return self.base_dataset

    @property
    def data_settings(self) -> tuple[Hashable, ...]:
        axes = not self.class_distribution.is_uniform, self.within_class_variation
        shape = self.input_shape, self.num_classes, self.sequence_length
        return self.data_dir, self.validation_share, *shape, *axes

    def load(self, name: str | None = None) -> BaseDataset:
        """Loads base dataset `name`, by default the one trained on, at this input shape.

        Raises:
          UsageError: it has too few examples for T, or a class without any where classes are drawn before examples.
        """
        name = name or self.base_dataset
        data = load_base_dataset(
            name,
            input_shape=self.input_shape,
            num_classes=self.num_classes,
            data_dir=self.data_dir,
            validation_share=self.validation_share,
        )
        held_out = "test" if self.validation_share is None else "validation"
        for split, examples in (("train", data.train), (held_out, data.test)):
            if examples.group_size is None and len(examples) < self.sequence_length:
                raise UsageError(
                    f"base dataset {name!r} has {len(examples)} {split} examples, fewer than "
                    f"TaskDistribution.sequence_length = {self.sequence_length}"
                )
            if not self.class_distribution.is_uniform:
                self.class_sampler(examples, f"base dataset {name!r}, {split} split,")
        if self.within_class_variation == 1:
            return data
        if data.train.group_size is not None:
            raise UsageError(
                f"base dataset {name!r} has other classes in each group of its examples, and so no class means: leave "
                "out TaskDistribution.within_class_variation"
            )
        return scale_variation(data, self.within_class_variation)

    def sampler(self, split: Split) -> ExampleSampler | ClassSampler | RandomLabels:
        sampler = split.sampler if self.class_distribution.is_uniform else self.class_sampler(split)
        return RandomLabels(sampler, self.label_noise, self.num_classes) if self.label_noise else sampler

    def class_sampler(self, split: Split, what: str = "the base dataset") -> ClassSampler:
        """Returns what draws from a split by classes; messages call it `what`.

        Raises:
          UsageError: the split has a class without examples, or other classes in each group of its examples.
        """
        if split.group_size is not None:
            raise UsageError(
                f"{what} has other classes in each group of its examples, so that sequences cannot be drawn by their "
                "classes: leave out TaskDistribution.burstiness and TaskDistribution.zipf_exponent"
            )
        return ClassSampler.from_labels(self.class_distribution, split.labels, what)

    def batch_of_classes(self, split: Split, rng: np.random.Generator, classes: np.ndarray) -> Batch:
        return {"example_indices": self.class_sampler(split).examples_of(rng, classes)}

    def default_datasets(self, names: Sequence[str]) -> tuple[str, ...]:
        return tuple(names) if self.data_dir is None else ()

    def projection_spec(self, stored_shape: tuple[int, ...]) -> ProjectionSpec:
        """Returns how projections are drawn for the base dataset trained on, given the shape it is stored in."""
        return spec.choose(
            self.projection,
            stored_shape=stored_shape,
            input_shape=self.input_shape,
            sequence_length=self.sequence_length,
            replayed=self.num_tasks is not None or self.sequences_per_task > 1,
        )

    def drawing(self, data: BaseDataset) -> ProjectionSpec:
        return self.projection_spec(data.stored_shape)

    def assumed_drawing(self) -> ProjectionSpec:
        return self.projection_spec(self.assumed_examples().stored_shape)

    def assumed_examples(self) -> AssumedExamples:
        examples = assumed_examples(self.base_dataset, self.input_shape)
        return examples if self.within_class_variation == 1 else examples._replace(dtype="float32")

    def read_drawing(self, run_info: Mapping[str, Any], folder: str) -> ProjectionSpec:
        """Returns how a run drew its projections.

        Raises:
          UsageError: an older version drew them otherwise, or the setting `projection` asks for another way.
        """
        if "projection" not in run_info:
            raise UsageError(f"{folder} was made by an older version of gpicl_flax, which drew other tasks")
        projection = ProjectionSpec.from_run_info(run_info["projection"])
        if self.projection not in ("auto", projection.kind):
            raise UsageError(
                f"{folder}: its projections were drawn in the form {projection.kind!r}; that cannot be changed to "
                f"{self.projection!r} afterwards"
            )
        return projection

    def check_repeated_tasks(self) -> None:
        if self.num_tasks is None and self.projection in ("auto", "gram"):
            raise UsageError(
                "MetaTest.sequences_per_task > 1 needs projections that several sequences can share: a bounded "
                "TaskDistribution.num_tasks, or TaskDistribution.projection = 'span'"
            )

    def can_replay(self, drawing: ProjectionSpec) -> bool:
        return drawing.replayable

    def run_info(self) -> dict[str, Any]:
        return {
            "num_classes": self.num_classes,
            "sequence_length": self.sequence_length,
            "task_batch_size": self.task_batch_size,
            "num_tasks": self.num_tasks,
            "permute_labels_prob": self.permute_labels_prob,
            **self.validation_run_info(),
        } | self.axes_run_info()

    def axes_run_info(self) -> dict[str, Any]:
        found = super().axes_run_info()
        if self.within_class_variation != 1:
            found.setdefault("class_distribution", {})["within_class_variation"] = self.within_class_variation
        return found

    def data_run_info(self, data: BaseDataset, drawing: ProjectionSpec) -> dict[str, Any]:
        offset, scale = data.normalization(self.normalize)
        return {
            "base_dataset": {
                "name": data.name,
                "train_examples": len(data.train),
                "test_examples": len(data.test),
                "mean": data.mean,
                "std": data.std,
                "fingerprint": data.fingerprint,
            },
            "input_rms": _rms(data, offset, scale),
            "projection": drawing.as_run_info(),
            **({"features": self.features} if self.features != "linear" else {}),
        }

    # Sequences on the device.

    @property
    def program_settings(self) -> Hashable:
        return self.num_classes, self.num_fixed, self.query_only, self.features

    def numbers(self) -> np.float32:
        """Returns p."""
        return np.float32(self.permute_labels_prob)

    def unseen_numbers(self, numbers: Any) -> float:
        """Returns 1: unseen tasks always permute their labels."""
        return 1.0

    def device_data(self, data: BaseDataset, drawing: ProjectionSpec) -> DeviceData:
        offset, scale = data.normalization(self.normalize)
        rms = np.float32(_rms(data, offset, scale)) if self.features == "fourier" else None
        return DeviceData(None, np.float32(offset), np.float32(scale), drawing.coordinates(data.stored_shape), rms)

    def abstract_batch(
        self, drawing: ProjectionSpec, on_device: bool, array: Callable[..., Any], rows: Callable[..., Any]
    ) -> tuple[Any, dict[str, tuple[Any, tuple[int, ...]]]]:
        examples, length = self.assumed_examples(), self.sequence_length
        stored = math.prod(drawing.basis_shape)
        coordinates = jax.tree.map(lambda x: array(x.dtype, x.shape), drawing.coordinates(drawing.basis_shape))
        if on_device:
            split = rows(examples.dtype, (examples.number, stored)), array(jnp.int32, (examples.number,))
            batch = {"example_indices": (jnp.int32, (length,))}
        else:
            split = None
            batch = {"inputs": (examples.dtype, (length, stored)), "labels": (jnp.int32, (length,))}
        if self.label_noise:
            batch["random_labels"] = (jnp.int32, (length,))
        rms = array(jnp.float32, ()) if self.features == "fourier" else None
        return DeviceData(split, array(jnp.float32, ()), array(jnp.float32, ()), coordinates, rms), batch

    def drawing_bytes(self, drawing: ProjectionSpec, num_sequences: int) -> int:
        if not drawing.replayable:
            return 0
        coordinates = math.prod(drawing.basis_shape) if drawing.kind == "span" else drawing.num_features
        return num_sequences * coordinates * drawing.num_features * 4

    def make_sequences(
        self,
        drawing: ProjectionSpec,
        seed: jax.Array | np.uint32,
        batch: Mapping[str, Any],
        data: DeviceData,
        numbers: float | jax.Array,
        *,
        max_bytes: int,
        num_shards: int,
    ) -> Sequences:
        augmentation = Augmentation(drawing, self.num_classes, max_bytes, num_shards, self.num_fixed)
        task_key, examples = keys.task_key(seed), data.examples(batch)
        inputs, labels = augmentation.make_sequences(task_key, batch["task_ids"], examples, numbers, data.fourier_rms)
        if "random_labels" in batch:
            labels = replace_labels(labels, batch["random_labels"])
        return Sequences(inputs, labels, counted=self.counted(labels.shape))


def _rms(data: BaseDataset, offset: float, scale: float) -> float:
    """Returns the root mean square of the normalised inputs of a base dataset."""
    return math.hypot(data.mean - offset, data.std) / scale
