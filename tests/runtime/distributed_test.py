"""What the environment says of several processes; tests/multi_process/ has real ones."""

import os
import socket
import subprocess
import sys
import types

import pytest
from jax._src import distributed as jax_distributed

from gpicl_flax.errors import UsageError
from gpicl_flax.runtime import distributed

COMPLETE = {"JAX_COORDINATOR_ADDRESS": "localhost:1234", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"JAX_NUM_PROCESSES": ""}, "but not JAX_NUM_PROCESSES"),
        ({"JAX_PROCESS_ID": "two"}, "JAX_PROCESS_ID must be a number, not 'two'"),
        ({"JAX_PROCESS_ID": "2"}, "must be less than JAX_NUM_PROCESSES = 2"),
        ({"JAX_COORDINATOR_ADDRESS": "localhost"}, "must be host:port"),
        ({"JAX_COORDINATOR_PORT": "http"}, "JAX_COORDINATOR_PORT must be a number"),
        ({"GPICL_CONNECT_SECONDS": "soon"}, "GPICL_CONNECT_SECONDS must be a number"),
    ],
)
def test_a_wrong_environment_is_one_line(monkeypatch, changes, words):
    for name, value in (COMPLETE | changes).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=words):
        distributed.connect()


@pytest.mark.parametrize("address", ["10.0.0.1", "10.0.0.1:8482"])
def test_the_port_can_be_chosen(monkeypatch, address):
    monkeypatch.setenv("JAX_COORDINATOR_PORT", "9999")
    settings = distributed._settings(COMPLETE | {"JAX_COORDINATOR_ADDRESS": address})
    assert settings == {"coordinator_address": "10.0.0.1:9999", "num_processes": 2, "process_id": 1}


@pytest.mark.parametrize(
    ("tasks", "nodes", "more", "expected"),
    [
        ("4", "4", {}, {"local_device_ids": []}),  # all devices of the node
        ("8", "4", {}, {}),  # JAX gives each the one of its number
        ("4", "4", {"JAX_LOCAL_DEVICE_IDS": "0,1"}, {}),
        ("1", "1", {}, None),
        (None, None, {}, None),  # a batch script, for which SLURM_NTASKS is that of the job
    ],
)
def test_tasks_of_a_slurm_step_are_several_processes(monkeypatch, tasks, nodes, more, expected):
    step = {"SLURM_STEP_NUM_TASKS": tasks, "SLURM_STEP_NUM_NODES": nodes, "SLURM_PROCID": "0", "SLURM_NTASKS": "4"}
    for name, value in (step | more).items():
        monkeypatch.setenv(name, value) if value is not None else monkeypatch.delenv(name, raising=False)
    calls = []
    monkeypatch.setattr("jax.distributed.initialize", lambda **settings: calls.append(settings))
    distributed.connect()
    kept = [
        {name: value for name, value in call.items() if not name.endswith(("timeout", "seconds"))} for call in calls
    ]
    assert kept == ([] if expected is None else [expected])


def test_the_only_process_of_a_node_uses_all_its_devices():
    """For JAX as it is: no choice is a choice of all, and without one a process of Slurm has device 0 alone."""
    script = (
        "import jax; from jax._src import xla_bridge; "
        "jax.distributed.initialize(num_processes=1, local_device_ids={}); "
        "print(xla_bridge.CUDA_VISIBLE_DEVICES.value)"
    )
    step = {"JOB_ID": "1", "STEP_NODELIST": "localhost", "NTASKS": "1", "PROCID": "0", "LOCALID": "0"}
    environment = os.environ | {f"SLURM_{name}": value for name, value in step.items()}
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        environment["JAX_COORDINATOR_PORT"] = str(probe.getsockname()[1])
    for chosen, visible in (("[]", "all"), ("None", "0")):
        words = [sys.executable, "-c", script.format(chosen)]
        assert (
            subprocess.run(words, env=environment, check=True, capture_output=True, text=True).stdout == f"{visible}\n"
        )


def test_a_single_process_needs_nobody():
    distributed.connect()
    distributed.barrier("alone")
    distributed.check_same("anything", "thing")
    distributed.abort(1, "goes on")
    assert (
        distributed.is_primary()
        and distributed.max_over_processes(3, "a number") == 3
        and distributed.broadcast("text", "a text") == "text"
    )


def test_what_never_uses_jax_does_not_wait_for_its_import():
    script = (
        "import sys; from gpicl_flax.runtime import distributed; distributed.connect(); distributed.barrier('alone'); "
        "distributed.disconnect();assert distributed.is_primary() and 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


class FakeService:
    """The coordination service, with what the first of two processes has told it."""

    def __init__(self):
        self.told = {}

    def key_value_set(self, key, value):
        self.told |= {key: value, key.removesuffix("/1") + "/0": "of the first"}

    def blocking_key_value_get(self, key, milliseconds):
        return self.told[key]

    def wait_at_barrier(self, name, milliseconds):
        pass


def test_processes_that_jax_knows_are_several_whoever_made_it_know_them(monkeypatch):
    joined = types.SimpleNamespace(process_id=1, num_processes=2, client=FakeService())
    monkeypatch.setattr(jax_distributed, "global_state", joined)
    assert not distributed.is_primary() and distributed.broadcast("of the second", "a text") == "of the first"
