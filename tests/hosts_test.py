"""What the environment says of several processes; tests/multi_process/ has real ones."""

import subprocess
import sys
import types

import pytest
from jax._src import distributed

from gpicl_flax import hosts
from gpicl_flax.errors import UsageError

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
        hosts.connect()


@pytest.mark.parametrize("address", ["10.0.0.1", "10.0.0.1:8482"])
def test_the_port_can_be_chosen(monkeypatch, address):
    monkeypatch.setenv("JAX_COORDINATOR_PORT", "9999")
    settings = hosts._settings(COMPLETE | {"JAX_COORDINATOR_ADDRESS": address})
    assert settings == {"coordinator_address": "10.0.0.1:9999", "num_processes": 2, "process_id": 1}


def test_a_single_process_needs_nobody():
    hosts.connect()
    hosts.barrier("alone")
    hosts.check_same("anything", "thing")
    hosts.leave(1, "goes on")
    assert hosts.is_first() and hosts.agree(3, "a number") == 3 and hosts.share("text", "a text") == "text"


def test_what_never_uses_jax_does_not_wait_for_its_import():
    script = (
        "import sys; from gpicl_flax import hosts; hosts.connect(); hosts.barrier('alone'); hosts.disconnect();"
        "assert hosts.is_first() and 'jax' not in sys.modules"
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
    monkeypatch.setattr(distributed, "global_state", joined)
    assert not hosts.is_first() and hosts.share("of the second", "a text") == "of the first"
