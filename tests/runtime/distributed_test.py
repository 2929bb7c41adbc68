"""What the environment says of several processes; tests/multi_process/ has real ones."""

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
