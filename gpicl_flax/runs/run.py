"""Runs, one or a stack of them: from their settings to folders that are DONE."""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import NoneType
from typing import Any, NamedTuple

import gin
import jax
import jax.numpy as jnp
import optax
from etils import epath

import gpicl_flax
import gpicl_flax.references  # gin knows them by their import
from gpicl_flax import models
from gpicl_flax.config import Config, differences, parse_text
from gpicl_flax.errors import Diverged, Preempted, UsageError, check_types, first_line
from gpicl_flax.evaluation.meta_test import MetaTest, meta_test
from gpicl_flax.records import stack_lease
from gpicl_flax.records.json_lines import Row
from gpicl_flax.records.run_folder import DIVERGED, DONE, RunFolder, write_atomically, write_json
from gpicl_flax.runs.identity import identifying
from gpicl_flax.runtime import distributed
from gpicl_flax.runtime.preemption import StopRequest
from gpicl_flax.tasks.datasets.base_dataset import BaseDataset
from gpicl_flax.tasks.distribution import FIRST_UNSEEN_ID, TaskDistribution
from gpicl_flax.tasks.loader import Loader
from gpicl_flax.tasks.projections.spec import ProjectionSpec
from gpicl_flax.training import partitioning, tensorboard
from gpicl_flax.training.checkpoint import Checkpoints
from gpicl_flax.training.loop import Member, train
from gpicl_flax.training.optimizers import adam
from gpicl_flax.training.partitioning import MeshShape
from gpicl_flax.training.settings import Training
from gpicl_flax.training.state import abstract_state, shardings_of


@gin.configurable
@dataclasses.dataclass(frozen=True)
class Run:
    """The settings of one meta-training and its meta-test; the defaults are the paper's common setting.

    Attributes:
      model, optimizer, tasks, loader, training, meta_test, mesh: the settings of each part.
      seed: of the parameters, the tasks and the order of the data; 0..2**32-1.
      matmul_precision: of matrix products, a name that `jax.default_matmul_precision` knows, such as 'float32', 'bfloat16' or
        'BF16_BF16_F32'; None: the backend's own, which is float32 on CPU, tensorfloat32 on a GPU that has it, and bfloat16
        with sums in float32 on TPU. docs/performance.md says what was measured.
      tensorboard: write the training metrics for TensorBoard, too (needs the extra `tensorboard`).
      labels: what the axes of a sweep call this run, for those who analyse it (see `sweep.grid`); changes nothing.

    Raises:
      UsageError: the parts do not fit together.
    """

    model: models.SequenceModel = dataclasses.field(default_factory=models.Transformer)
    optimizer: optax.GradientTransformation = dataclasses.field(default_factory=adam)
    tasks: TaskDistribution = dataclasses.field(default_factory=TaskDistribution)
    loader: Loader = dataclasses.field(default_factory=Loader)
    training: Training = dataclasses.field(default_factory=Training)
    meta_test: MetaTest = dataclasses.field(default_factory=MetaTest)
    mesh: MeshShape = dataclasses.field(default_factory=MeshShape)
    seed: int = 0
    matmul_precision: str | None = None
    tensorboard: bool = False
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        check_types(
            self,
            model=models.SequenceModel,
            optimizer=optax.GradientTransformation,
            tasks=TaskDistribution,
            loader=Loader,
            training=Training,
            meta_test=MetaTest,
            mesh=MeshShape,
            seed=int,
            matmul_precision=(str, NoneType),
            tensorboard=bool,
            labels=dict,
        )
        try:
            self.precision()
        except ValueError as error:
            raise UsageError(f"Run.matmul_precision: {first_line(error)}") from error
        name, tasks = type(self.model).__name__, self.tasks
        longest = self.model.max_sequence_length
        if longest is not None and tasks.sequence_length > longest:
            raise UsageError(
                f"TaskDistribution.sequence_length = {tasks.sequence_length} is longer than the {longest} positions of "
                f"the model; raise {name}.max_length"
            )
        if self.model.num_classes != tasks.num_classes:
            raise UsageError(
                f"{name}.num_classes = {self.model.num_classes} and TaskDistribution.num_classes = {tasks.num_classes} "
                "must be equal"
            )
        if self.training.steps and not self.model.is_meta_trained:
            raise UsageError(f"{name} has no parameters to meta-train, only a meta-test: set Training.steps = 0")
        if tasks.num_tasks is None and self.training.steps * tasks.task_batch_size > FIRST_UNSEEN_ID:
            raise UsageError(
                "an unbounded number of tasks has 2**31 ids, fewer than Training.steps x TaskDistribution.task_batch_size"
            )
        if self.meta_test.sequences_per_task > 1 and tasks.num_tasks is None and tasks.projection in ("auto", "gram"):
            raise UsageError(
                "MetaTest.sequences_per_task > 1 needs projections that several sequences can share: a bounded "
                "TaskDistribution.num_tasks, or TaskDistribution.projection = 'span'"
            )
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"Run.seed must be in 0..2**32-1, not {self.seed}")
        if self.tensorboard:
            tensorboard.check_installed()

    def precision(self) -> contextlib.AbstractContextManager:
        """A context in which programs are made with `matmul_precision`."""
        if self.matmul_precision is None:
            return contextlib.nullcontext()
        return jax.default_matmul_precision(self.matmul_precision)

    def sizes(self) -> dict[str, int]:
        """The model's number of parameters and both state sizes."""
        return models.sizes(self.model, self.tasks.num_features, self.tasks.sequence_length)

    def check_devices(self, num_members: int = 1, devices: Sequence[jax.Device] | None = None) -> jax.sharding.Mesh:
        """The mesh for a stack of so many runs, on other devices than those here if they are given; raises UsageError if it
        does not fit the devices, or batch or parameters do not divide over it."""
        mesh = self.mesh.build(num_members, devices)
        parts = partitioning.batch_shards(mesh) * self.training.accumulation
        if self.tasks.task_batch_size % parts:
            raise UsageError(
                f"TaskDistribution.task_batch_size = {self.tasks.task_batch_size} is not divisible by the mesh: "
                f"{partitioning.batch_shards(mesh)} device(s) along `data` and `fsdp` x Training.accumulation = {self.training.accumulation}"
            )
        abstract_state(self.model, self.optimizer, self.tasks, mesh=mesh)
        if self.matmul_precision is not None and devices is None:
            self._check_precision()
        return mesh

    def _check_precision(self) -> None:
        try:
            with self.precision():
                jax.jit(jnp.dot).lower(jnp.zeros(1), jnp.zeros(1)).compile()
        except Exception as error:  # of the compiler, which has several kinds
            raise UsageError(
                f"Run.matmul_precision = {self.matmul_precision!r} does not work here ({first_line(error)})"
            ) from error

    @property
    def test_names(self) -> tuple[str, ...]:
        """The base datasets to meta-test on."""
        return tuple(self.meta_test.base_datasets) or (self.tasks.base_dataset,)

    @property
    def base_datasets(self) -> tuple[str, ...]:
        """All base datasets that the run reads: the one trained on, and those to meta-test on."""
        return tuple(dict.fromkeys((self.tasks.base_dataset, *self.test_names)))


class RunSpec(NamedTuple):
    """A run to be started, or started again.

    Attributes:
      config: its whole configuration.
      folder: where it is, or will be.
      on_row: called with every new row of its metrics.jsonl.
    """

    config: Config
    folder: RunFolder
    on_row: Callable[[Row], None] = lambda row: None


def execute(spec: RunSpec, stop: StopRequest) -> None:
    """Trains one run, meta-tests it and marks its folder DONE; goes on where an earlier start of it stopped.

    Args:
      stop: while it is not requested, the run goes on; a meta-test that has begun is finished.

    Raises:
      UsageError: the settings, the data or the folder do not fit; nothing has been written.
      Preempted, Diverged: see `train`.
      GpiclError: another process trains it.
    """
    while True:
        try:
            (diverged,) = execute_stack([spec], stop)
        except stack_lease.LeaseUnavailable:
            check_folder(spec.config, spec.folder)
            if spec.folder.ended:
                return
            stack_lease.wait_until_available(spec.folder, stop)
            continue
        if diverged:
            raise diverged
        return


def execute_stack(
    specs: Sequence[RunSpec], stop: StopRequest, on_held: Callable[[], None] = lambda: None
) -> list[Diverged | None]:
    """Trains runs as the members of a stack, as `execute` does one; returns for each why it diverged, or None.

    The runs differ in what `train` allows members to differ in (see `sweep.stacking`). `on_held` is called when it is sure
    that nobody else trains them.

    Raises:
      stack_lease.LeaseUnavailable: others train some of them, or they have ended; nothing has been written.
      UsageError, Preempted: see `execute`.
    """
    resolved = [spec.config.resolve(Run) for spec in specs]
    runs = [run for run, _ in resolved]
    run, folders = runs[0], [spec.folder for spec in specs]
    for spec in specs:
        check_folder(spec.config, spec.folder)
    mesh = run.check_devices(len(runs))
    load = functools.cache(run.tasks.load)
    dataset, test_datasets = load(run.tasks.base_dataset), [load(name) for name in run.test_names]
    projection = run.tasks.projection_spec(dataset.stored_shape)
    with stack_lease.hold(folders) as check_leases:
        on_held()
        return _execute_held(specs, resolved, dataset, test_datasets, projection, mesh, check_leases, stop)


def _execute_held(
    specs: Sequence[RunSpec],
    resolved: Sequence[tuple[Run, str]],
    dataset: BaseDataset,
    test_datasets: list[BaseDataset],
    projection: ProjectionSpec,
    mesh: jax.sharding.Mesh,
    check_leases: Callable[[], None],
    stop: StopRequest,
) -> list[Diverged | None]:
    """`execute_stack`, once this process alone has the folders."""
    runs = [run for run, _ in resolved]
    run, folders = runs[0], [spec.folder for spec in specs]
    for folder in folders:
        if folder.checkpoints.exists():
            with Checkpoints(folder.checkpoints) as checkpoints:
                check_data(folder, checkpoints, dataset)
    distributed.check_same("\n".join(spec.config.text for spec in specs), "configuration")
    if distributed.is_primary():
        for spec, (each, operative) in zip(specs, resolved, strict=True):
            # The configuration first: it makes it a run folder, to be started again.
            write_atomically(spec.folder.config, spec.config.text)
            write_atomically(spec.folder.operative_config, operative)
            _describe(each, dataset, projection, mesh, spec.folder)
    with jax.set_mesh(mesh), run.precision(), contextlib.ExitStack() as stack:
        members, meta_tests = [], []
        for spec, each in zip(specs, runs, strict=True):
            on_row = stack.enter_context(_also_to_tensorboard(each, spec.folder, spec.on_row))
            on_row = stack_lease.also_checked(check_leases, on_row)
            member = Member(each.seed, each.optimizer, each.tasks, spec.folder, spec.config.text, on_row)
            meta_tests.append(functools.partial(_evaluate_member, each, projection, test_datasets, spec.folder))
            if each.meta_test.at_checkpoints:
                member = dataclasses.replace(member, on_checkpoint=meta_tests[-1])
            members.append(member)
        steps, params, diverged = train(
            run.model, members, dataset, projection, run.training, run.loader, mesh=mesh, stop=stop
        )
        for evaluate_member, folder, step, own_params, failed in zip(
            meta_tests, folders, steps, params, diverged, strict=True
        ):
            if failed:
                continue
            if distributed.max_over_processes(int(stop.requested), "the end of training"):
                raise Preempted(f"stopped after the last of {step:,} steps; start it again for the meta-test")
            evaluate_member(step, own_params)
            if distributed.is_primary():
                folder.mark(DONE)
    return diverged


@contextlib.contextmanager
def _also_to_tensorboard(run: Run, folder: RunFolder, on_row: Callable[[Row], None]) -> Iterator[Callable[[Row], None]]:
    if not run.tensorboard or not distributed.is_primary():
        yield on_row
        return
    with contextlib.closing(tensorboard.TensorBoard(folder)) as writer:
        yield lambda row: (writer(row), on_row(row))


def check_folder(config: Config, folder: RunFolder) -> None:
    """Raises UsageError if the folder holds another run, something else, or a run that diverged."""
    if folder.config.exists():
        changed = differences(*map(identifying, (parse_text(folder.config.read_text()), config)))
        if changed:
            raise UsageError(
                f"{folder} holds a run with another configuration ({'; '.join(changed)}); choose another folder"
            )
    elif folder.path.exists() and any(not path.name.startswith(".") for path in folder.path.iterdir()):
        raise UsageError(f"{folder} is not empty and is not a run folder; choose another folder")
    if folder.ended == DIVERGED:
        raise UsageError(f"{folder} holds a run that {(folder.path / DIVERGED).read_text().strip()}")


def check_data(folder: RunFolder, checkpoints: Checkpoints, dataset: BaseDataset) -> None:
    """Raises UsageError if the newest checkpoint, where there is one, comes from other data than `dataset`."""
    if checkpoints.latest_step is not None and checkpoints.meta().get("data") != dataset.fingerprint:
        raise UsageError(
            f"{folder} was trained on other data: base dataset {dataset.name!r} has the fingerprint {dataset.fingerprint} "
            f"now, and had {checkpoints.meta().get('data')} then; bring back that data, or choose another folder"
        )


def _evaluate_member(
    run: Run, projection: ProjectionSpec, datasets: list[BaseDataset], folder: RunFolder, step: int, params: Any
) -> None:
    """Meta-tests one member of a stack after a step."""
    # The devices that members trained on side by side test one after the other.
    mesh = run.mesh.build()
    like = abstract_state(run.model, run.optimizer, run.tasks, mesh=mesh)
    params = jax.device_put(params, shardings_of(like.params))
    with jax.set_mesh(mesh):
        write_evaluation(run, projection, params, step, datasets, mesh, folder.evaluation(step))


def write_evaluation(
    run: Run, projection: ProjectionSpec, params: Any, step: int, datasets: list[BaseDataset], mesh, file: epath.Path
) -> None:
    """Meta-tests parameters of a run after a step, and writes the curves; to be called on `mesh`."""
    curves = meta_test(
        run.model,
        params,
        run.tasks,
        datasets,
        projection,
        run.meta_test,
        seed=run.seed,
        mesh=mesh,
        placement=run.loader.placement,
    )
    if distributed.is_primary():
        write_json(file, {"step": step, "curves": curves})


def _describe(
    run: Run, dataset: BaseDataset, projection: ProjectionSpec, mesh: jax.sharding.Mesh, folder: RunFolder
) -> None:
    offset, scale = dataset.normalization(run.tasks.normalize)
    run_info = {
        "gpicl_flax": gpicl_flax.__version__,
        "jax": jax.__version__,
        "labels": dict(run.labels),
        "model": type(run.model).__name__,
        **run.sizes(),
        "num_classes": run.tasks.num_classes,
        "sequence_length": run.tasks.sequence_length,
        "task_batch_size": run.tasks.task_batch_size,
        "num_tasks": run.tasks.num_tasks,
        "permute_labels_prob": run.tasks.permute_labels_prob,
        "steps": run.training.steps,
        "seed": run.seed,
        "base_dataset": {
            "name": dataset.name,
            "train_examples": len(dataset.train),
            "test_examples": len(dataset.test),
            "mean": dataset.mean,
            "std": dataset.std,
            "fingerprint": dataset.fingerprint,
        },
        "input_rms": math.hypot(dataset.mean - offset, dataset.std) / scale,
        "projection": projection.as_run_info(),
        "mesh": dict(mesh.shape),
        "device": mesh.devices.flat[0].device_kind,
    }
    write_json(folder.run_info, run_info)
