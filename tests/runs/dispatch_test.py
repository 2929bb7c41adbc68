"""The devices do not wait for the host: states stay on them, and the host reads a dispatch while the next one runs."""

import threading

import jax
import jax.numpy as jnp
import pytest

from gpicl_flax.config import Reference
from gpicl_flax.models import MLP
from gpicl_flax.records.run_folder import RunFolder
from gpicl_flax.tasks.families.projected_images import ProjectedImages
from gpicl_flax.training import loop
from gpicl_flax.training.cost import lowering
from gpicl_flax.training.optimizers import adam
from gpicl_flax.training.partitioning import MeshShape
from gpicl_flax.training.settings import Training


class Recorder:
    """The training steps of a run, and for each dispatch the arrays that the host has read before the next one."""

    def __init__(self, train_steps):
        self.train_steps, self.outputs, self.read = train_steps, [], []

    def __call__(self, *arguments):
        states, metrics, measured = self.train_steps(*arguments)
        self.outputs.append({id(x) for x in jax.tree.leaves((metrics, measured))})
        self.kept = metrics, measured  # or an id could return
        self.read.append([])
        return states, metrics, measured

    def trace(self, *arguments):
        return self.train_steps.trace(*arguments)


@pytest.fixture
def recorded(monkeypatch):
    """The recorders of the runs that the test starts. Only what the main thread reads counts."""
    recorders, arrays = [], type(jnp.zeros(()))
    make, value = loop.make_train_steps, arrays._value

    def record(*arguments, **settings):
        recorders.append(Recorder(make(*arguments, **settings)))
        return recorders[-1]

    def read(array):
        if recorders and recorders[-1].read and threading.current_thread() is threading.main_thread():
            recorders[-1].read[-1].append(id(array))
        return value.__get__(array)

    monkeypatch.setattr(loop, "make_train_steps", record)
    monkeypatch.setattr(arrays, "_value", property(read))
    return recorders


@pytest.mark.slow
def test_the_host_reads_only_the_dispatch_before(start, config, tmp_path, recorded):
    small = {"Run.model": Reference("@MLP()"), "MLP.hidden_size": 4, "Training.steps": 12}
    config = config.without("LSTM.hidden_size")
    start(config.override(small | {"Training.checkpoint_period": 12}), RunFolder(tmp_path / "run"))
    (recorder,) = recorded
    assert len(recorder.read) == 6 and not recorder.read[0]
    for number in range(1, 5):  # the last one is read at the end
        assert recorder.read[number] and set(recorder.read[number]) <= recorder.outputs[number - 1]


@pytest.mark.parametrize("num_members", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_dispatch_reuses_the_memory_of_the_states_and_of_nothing_else(num_members):
    tasks = ProjectedImages(input_shape=(9,), task_batch_size=4, sequence_length=3, num_tasks=None)
    training = Training(steps=2, steps_per_dispatch=2, checkpoint_period=2)
    mesh = MeshShape(data=1).build(devices=jax.devices()[:1])
    lowered = lowering.lower(
        MLP(hidden_size=4), adam(), tasks, tasks.assumed_drawing(), training, mesh=mesh, num_members=num_members
    )
    (states, *others), _ = lowered.args_info
    assert all(info.donated for info in jax.tree.leaves(states))
    assert not any(info.donated for info in jax.tree.leaves(others))
    # The compiler could leave a donated buffer unused. Here it does not: every state is written over the one before.
    memory = lowered.compile().memory_analysis()
    assert memory.alias_size_in_bytes == sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(lowered.out_info[0]))
