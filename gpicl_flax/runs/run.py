"""The settings of one run, which gin resolves once."""

import contextlib
import dataclasses
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import gin
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from gpicl_flax import models
from gpicl_flax.bindings.kinds import check_settings
from gpicl_flax.config import Config
from gpicl_flax.errors import UsageError, first_line
from gpicl_flax.evaluation.meta_test import MetaTest
from gpicl_flax.records import selection_rule
from gpicl_flax.references import by_family
from gpicl_flax.tasks.families import FIRST_UNSEEN_ID, ProjectedImages, TaskFamily
from gpicl_flax.tasks.loader import Loader
from gpicl_flax.training import parametrization, partitioning, tensorboard
from gpicl_flax.training.device_data import device_memory, host_memory
from gpicl_flax.training.optimizers import adam
from gpicl_flax.training.partitioning import MeshShape
from gpicl_flax.training.probes import class_accuracies
from gpicl_flax.training.settings import Training
from gpicl_flax.training.state import abstract_state, bytes_on_a_device
from gpicl_flax.training.task_batches import TaskBatches


@gin.configurable
@dataclasses.dataclass(frozen=True)
class Run:
    """The settings of one meta-training and its meta-test. The defaults are the paper's common setting.

    Attributes:
      model, optimizer, tasks, loader, training, meta_test, mesh: the settings of each part.
      seed: the seed of the parameters, the tasks and the order of the data; 0..2**32-1.
      matmul_precision: the precision of matrix products, a name that `jax.default_matmul_precision` knows, such as
        'float32', 'bfloat16' or 'BF16_BF16_F32'. None: the backend's own, which is float32 on CPU, tensorfloat32 on a
        GPU that has it, and bfloat16 with sums in float32 on TPU. docs/performance.md has measurements.
      tensorboard: also write the training metrics for TensorBoard (needs the extra `tensorboard`).
      labels: the names that the axes of a sweep give to this run, for its analysis (see `sweep.grid`). They change
        nothing.
      selection: how a sweep chose, or is choosing, settings of this run, for its analysis (see `sweep.selection`). It
        changes nothing.

    Raises:
      UsageError: the parts do not fit together.
    """

    model: models.SequenceModel = dataclasses.field(default_factory=models.Transformer)
    optimizer: optax.GradientTransformation = dataclasses.field(default_factory=adam)
    tasks: TaskFamily = dataclasses.field(default_factory=ProjectedImages)
    loader: Loader = dataclasses.field(default_factory=Loader)
    training: Training = dataclasses.field(default_factory=Training)
    meta_test: MetaTest = dataclasses.field(default_factory=MetaTest)
    mesh: MeshShape = dataclasses.field(default_factory=MeshShape)
    seed: int = 0
    matmul_precision: str | None = None
    tensorboard: bool = False
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    selection: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        # The parts check themselves. Here are the conditions that involve several of them, so that a run that cannot
        # work fails before anything expensive starts.
        check_settings(self)
        try:
            self.precision()
        except ValueError as error:
            raise UsageError(f"Run.matmul_precision: {first_line(error)}") from error
        name, tasks, family = type(self.model).__name__, self.tasks, self.tasks.gin_name
        longest = self.model.max_sequence_length
        if longest is not None and tasks.sequence_length > longest:
            raise UsageError(
                f"{family}.sequence_length = {tasks.sequence_length} is longer than the {longest} positions of "
                f"the model; raise {name}.max_length"
            )
        self._fit_model_to_targets()
        object.__setattr__(self, "optimizer", parametrization.for_model(self.optimizer, self.model))
        if self.training.steps and not self.model.is_meta_trained:
            raise UsageError(f"{name} has no parameters to meta-train, only a meta-test: set Training.steps = 0")
        if tasks.num_tasks is None and self.training.steps * tasks.task_batch_size > FIRST_UNSEEN_ID:
            raise UsageError(
                f"an unbounded number of tasks has 2**31 ids, fewer than Training.steps x {family}.task_batch_size"
            )
        if self.meta_test.sequences_per_task > 1:
            tasks.check_repeated_tasks()
        if self.meta_test.base_datasets and not tasks.has_base_datasets:
            raise UsageError(f"MetaTest.base_datasets must be empty: the tasks of {family} have no base dataset")
        by_family.chosen(tasks, self.meta_test.references, "MetaTest.references", with_host=True)
        if self.training.diagnostics:
            by_family.chosen(tasks, self.training.diagnostics.references, "Diagnostics.references")
            if self.training.diagnostics.class_accuracies:
                class_accuracies.check(tasks)
        self._check_curriculum()
        self._check_selection()
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"Run.seed must be in 0..2**32-1, not {self.seed}")
        if self.tensorboard:
            tensorboard.check_installed()

    def _check_curriculum(self) -> None:
        """Raises UsageError if the curriculum changes a property that the tasks do not have."""
        curriculum = self.training.curriculum
        for field in dataclasses.fields(curriculum) if curriculum else ():
            if getattr(curriculum, field.name) is not None and field.name not in self.tasks.curricula:
                raise UsageError(f"Curriculum.{field.name}: the tasks of {self.tasks.gin_name} have no {field.name}")

    def _check_selection(self) -> None:
        """Raises UsageError if `selection` is not as a sweep writes it, or the metric is none of these tasks."""
        if self.selection and self.selection.keys() != selection_rule.RECORD:
            raise UsageError("Run.selection is for sweeps, which write it for reports; leave it out")
        if self.selection.get("metric") == selection_rule.ACCURACY and self.tasks.targets.predicts != models.CLASSES:
            raise UsageError(
                f"sweep.select_metric is 'accuracy', but the targets of {self.tasks.gin_name} are numbers; set it to "
                "'loss'"
            )

    def _fit_model_to_targets(self) -> None:
        """Sets what the model predicts from the task family; raises UsageError if it cannot, or is set otherwise."""
        model, targets, family = self.model, self.tasks.targets, self.tasks.gin_name
        name = type(model).__name__
        if targets.num_classes:
            if model.predicts != targets.predicts:
                raise UsageError(f"{name}.predicts = {model.predicts!r}, but the targets of {family} are classes")
            if model.num_classes != targets.num_classes:
                raise UsageError(
                    f"{name}.num_classes = {model.num_classes} and {family}.num_classes = {targets.num_classes} must "
                    "be equal"
                )
            return
        if targets.predicts not in model.predictable:
            raise UsageError(f"{name} predicts classes only, and the targets of {family} are numbers")
        if model.predicts not in (models.CLASSES, targets.predicts):
            raise UsageError(f"{name}.predicts = {model.predicts!r}, but {family} needs {targets.predicts!r}")
        if model.num_classes != type(model).num_classes:
            raise UsageError(f"{name}.num_classes has no effect: the targets of {family} are numbers; leave it out")
        object.__setattr__(self, "model", model.clone(predicts=targets.predicts))

    def precision(self) -> contextlib.AbstractContextManager:
        """Returns a context in which programs are compiled with `matmul_precision`."""
        if self.matmul_precision is None:
            return contextlib.nullcontext()
        return jax.default_matmul_precision(self.matmul_precision)

    def sizes(self) -> dict[str, int]:
        """Returns the model's number of parameters and both state sizes."""
        return models.sizes(self.model, self.tasks.num_features, self.tasks.sequence_length)

    def check_devices(
        self,
        num_members: int = 1,
        devices: Sequence[jax.Device] | None = None,  # pyright: ignore[reportInvalidTypeForm]  # jaxlib has no stubs
        *,
        trains: bool = True,
    ) -> Mesh:
        """Returns the mesh for a stack of `num_members` runs.

        Args:
          num_members: the number of runs.
          devices: the devices of the mesh; None: those of this machine or slice.
          trains: whether the runs go on to train, or are only meta-tested.

        Raises:
          UsageError: the mesh does not fit the devices, batch or parameters do not divide over it, or what is needed
            at once exceeds the memory.
        """
        mesh = self.mesh.build(num_members, devices)
        parts = partitioning.batch_shards(mesh) * self.training.accumulation
        if self.tasks.task_batch_size % parts:
            raise UsageError(
                f"{self.tasks.gin_name}.task_batch_size = {self.tasks.task_batch_size} is not divisible by the mesh: "
                f"{partitioning.batch_shards(mesh)} device(s) along `data` and `fsdp` x "
                f"Training.accumulation = {self.training.accumulation}"
            )
        state = abstract_state(self.model, self.optimizer, self.tasks, mesh=mesh)
        if devices is None:
            self._check_memory(bytes_on_a_device(state), mesh, -(-num_members // mesh.shape["member"]), trains)
        if self.matmul_precision is not None and devices is None:
            self._check_precision()
        return mesh

    def _check_memory(self, state_bytes: int, mesh: Mesh, members: int, trains: bool) -> None:
        """Raises UsageError if what the members of a device have at once, at least, is more than its memory."""
        tasks, training, family = self.tasks, self.training, self.tasks.gin_name
        on_device = {f"the parameters of the {type(self.model).__name__} and the optimiser's state": state_bytes}
        on_host = {
            f"the examples of a meta-test (MetaTest.num_sequences x {family}.sequence_length)": 4
            * self.meta_test.num_sequences
            * tasks.sequence_length
        }
        if trains and training.steps:
            batch = tasks.task_batch_size * tasks.sequence_length
            parts = partitioning.batch_shards(mesh) * training.accumulation
            inputs = f"the inputs of a step ({family}.task_batch_size x sequence_length x inputs)"
            on_device[inputs] = 4 * batch * tasks.num_features // parts
            state = self.model.state_size(tasks.num_features, tasks.sequence_length).exact
            states = f"the states of the {type(self.model).__name__} (one for each of {family}.task_batch_size)"
            on_device[states] = 2 * state * tasks.task_batch_size // parts  # of 16 bits, at least
            examples = "the examples of a dispatch (Training.steps_per_dispatch x task_batch_size x sequence_length)"
            on_host[examples] = 4 * training.steps_per_dispatch * batch // jax.process_count()
        for sizes, memory in ((on_device, device_memory(mesh)), (on_host, host_memory())):
            for name, size in sizes.items():
                if size * members > memory:
                    raise UsageError(
                        f"{name} take {size * members / 1e9:,.1f} GB, and there are {memory / 1e9:,.1f} GB; make them "
                        "smaller"
                    )

    def _check_precision(self) -> None:
        try:
            with self.precision():
                jax.jit(jnp.dot).lower(jnp.zeros(1), jnp.zeros(1)).compile()
        except Exception as error:  # the compiler raises several kinds
            raise UsageError(
                f"Run.matmul_precision = {self.matmul_precision!r} does not work here ({first_line(error)})"
            ) from error

    @property
    def test_names(self) -> tuple[str, ...]:
        """The names of the data to meta-test on."""
        return tuple(self.meta_test.base_datasets) or (self.tasks.data_name,)

    @property
    def base_datasets(self) -> tuple[str, ...]:
        """The names of all data that the run reads: those trained on, and those to meta-test on."""
        return tuple(dict.fromkeys((self.tasks.data_name, *self.test_names)))

    def task_batches(self, drawing: Hashable, mesh: Mesh, num_members: int = 1) -> TaskBatches:
        """Returns the batches of this run's sequences on a mesh, for training or a meta-test."""
        return TaskBatches(self.tasks, drawing, mesh, self.loader.placement, num_members)


class ResolvedRun(NamedTuple):
    """A configuration and its settings.

    Attributes:
      config: all bindings.
      run: the settings.
      operative_config: every parameter that was used, including defaults, as the text of a gin file.
    """

    config: Config
    run: Run
    operative_config: str


def resolve(config: Config) -> ResolvedRun:
    """Resolves a configuration; raises UsageError if a binding is unknown, unused, or has a value that does not fit."""
    return ResolvedRun(config, *config.resolve(Run))
