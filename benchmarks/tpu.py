"""What a training step costs on a TPU slice, by the account of its compiler; it needs no TPU, only libtpu.

    python benchmarks/tpu.py [--topology v5e:4x4x1]

Every row is one step (B = 128, T = 100, inputs of 32x32x3 from images stored as 28x28x1) with one Adam update. 'model
alone' is given its sequences; the other rows make them, by the form of projection they name, and their ratio is that of
their flops to the model alone. A mesh is member x data x model.

Flops and bytes are each device's; bytes include what is moved between its memories, such as the base dataset once. The
compiler counts the body of a loop once, so that both come from a program whose loops over positions are unrolled;
memory and collectives are those of the program that runs. The compiler does not count the factorisation of the Gram
form, T^3 / 3 flops a sequence.
"""

import argparse
import dataclasses
import sys
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gpicl_flax import models
from gpicl_flax.errors import UsageError
from gpicl_flax.models import SequenceModel, recurrence
from gpicl_flax.tasks.families.projected_images import ProjectedImages
from gpicl_flax.tasks.targets import sequence_losses
from gpicl_flax.training import optimizers, partitioning
from gpicl_flax.training.cost import collectives, hlo, lowering, topology
from gpicl_flax.training.settings import Training
from gpicl_flax.training.state import TrainState, abstract_state, shardings_of

INPUT_SHAPE, STORED_SHAPE = (32, 32, 3), (28, 28, 1)
ALONE = "model alone"
NUM_TASKS = {"dense": 2**25, "span": 2**25, "gram": None}
COLUMNS = (("model", 22), ("mesh", 6), ("row", 11), ("Gflops", 8), ("ratio", 5), ("MB", 7), ("temp MB", 7))


@dataclasses.dataclass(frozen=True)
class Case:
    """A model on a mesh of (member, data, model) axes, and the forms of projection that it is shown with."""

    name: str
    model: SequenceModel
    mesh: Mesh
    kinds: tuple[str, ...] = ("gram",)
    num_members: int = 1

    def tasks(self, kind: str) -> ProjectedImages:
        kind = "auto" if kind == ALONE else kind
        return ProjectedImages(input_shape=INPUT_SHAPE, num_tasks=NUM_TASKS.get(kind), projection=kind)


def cases(devices: np.ndarray) -> list[Case]:
    """What is compiled for a slice of these devices, an even number."""

    def mesh(*shape: int) -> Mesh:
        member, data, model = shape
        names = ("member", "data", "fsdp", "model")
        grid = devices.reshape(member, data, 1, model)
        return Mesh(grid, names, axis_types=(jax.sharding.AxisType.Auto,) * len(names))

    n, small = devices.size, models.Transformer(model_size=64, num_heads=2)
    return [
        Case("Transformer", models.Transformer(), mesh(1, n, 1), ("dense", "span", "gram")),
        Case("Transformer", models.Transformer(), mesh(1, n // 2, 2)),
        Case(f"{2 * n} small Transformers", small, mesh(n, 1, 1), num_members=2 * n),
        Case("LSTM", models.LSTM(), mesh(1, n, 1)),
        Case("outer-product LSTM", models.OuterProductLSTM(), mesh(1, n, 1)),
    ]


def lower(case: Case, kind: str) -> jax.stages.Lowered:
    """One training step of the case, with tasks made by that form or, if it is ALONE, given."""
    tasks, optimizer = case.tasks(kind), optimizers.adam()
    if kind == ALONE:
        return lower_alone(case, tasks, optimizer)
    projection = tasks.projection_spec(STORED_SHAPE)
    training = Training(steps_per_dispatch=1)
    return lowering.lower(
        case.model, optimizer, tasks, projection, training, mesh=case.mesh, num_members=case.num_members
    )


def lower_alone(case: Case, tasks: ProjectedImages, optimizer: optax.GradientTransformation) -> jax.stages.Lowered:
    """Loss, gradient and update on inputs and labels that lie on the devices."""
    optimizer = optimizers.inject(optimizer)

    def loss(params, inputs, labels):
        logits: Any = case.model.apply({"params": params}, inputs, labels)
        return sequence_losses(logits, labels)[0].mean()

    def step(state: TrainState, inputs, labels) -> TrainState:
        grads = jax.grad(loss)(state.params, inputs, labels)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        return state.replace(params=optax.apply_updates(state.params, updates), opt_state=opt_state)

    with jax.set_mesh(case.mesh):
        state, spec, rows = abstract_state(case.model, optimizer, tasks, mesh=case.mesh), (), ()
        if case.num_members > 1:
            step, spec, rows = jax.vmap(step, spmd_axis_name="member"), ("member",), (case.num_members,)
            shardings = partitioning.stacked(shardings_of(state))
            state = jax.tree.map(
                lambda x, s: jax.ShapeDtypeStruct((*rows, *x.shape), x.dtype, sharding=s), state, shardings
            )
        sharding = NamedSharding(case.mesh, PartitionSpec(*spec, partitioning.BATCH))
        shape = *rows, tasks.task_batch_size, tasks.sequence_length
        inputs = jax.ShapeDtypeStruct((*shape, tasks.num_features), jnp.float32, sharding=sharding)
        labels = jax.ShapeDtypeStruct(shape, jnp.int32, sharding=sharding)
        return jax.jit(step, donate_argnums=0, out_shardings=shardings_of(state)).lower(state, inputs, labels)


def counts(case: Case, kind: str) -> tuple[dict[str, float], Any]:
    """The compiler's count of flops and bytes of one step, and the program that runs."""
    compiled: Any = lower(case, kind).compile()  # whose annotations allow None, for other compilers
    counted: Any = compiled
    if " while(" in compiled.as_text():
        with mock.patch.object(recurrence, "_UNROLL", case.tasks(kind).sequence_length):
            counted = lower(case, kind).compile()
        assert " while(" not in counted.as_text()
    return counted.cost_analysis(), compiled


def show(case: Case) -> None:
    """Prints the rows of a case, each as soon as it is compiled."""
    mesh, alone = "x".join(str(case.mesh.shape[name]) for name in ("member", "data", "model")), None
    for kind in (ALONE, *case.kinds):
        cost, compiled = counts(case, kind)
        alone = alone or cost["flops"]
        numbers = (
            f"{cost['flops'] / 1e9:.2f}",
            f"{cost['flops'] / alone:.2f}",
            f"{cost['bytes accessed'] / 1e6:,.0f}",
            f"{compiled.memory_analysis().temp_size_in_bytes / 1e6:,.1f}",
        )
        said = collectives.summary(collectives.collectives(hlo.HloProgram(compiled.as_text())))
        print(_line((case.name, mesh, kind), numbers), said, sep="  ", flush=True)


def _line(words, numbers) -> str:
    cells = [word.ljust(width) for word, (_, width) in zip(words, COLUMNS, strict=False)]
    cells += [number.rjust(width) for number, (_, width) in zip(numbers, COLUMNS[len(words) :], strict=True)]
    return "  ".join(cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--topology", default="v5e:4x4x1", help="the slice (default %(default)s)")
    arguments = parser.parse_args()
    try:
        devices = np.array(topology.described_devices(arguments.topology))
    except UsageError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    print(f"jax {jax.__version__}, {devices.size} x {devices[0].device_kind} ({arguments.topology})")
    print(_line([name for name, _ in COLUMNS[:3]], [name for name, _ in COLUMNS[3:]]), "collectives", sep="  ")
    for case in cases(devices):
        show(case)


if __name__ == "__main__":
    main()
