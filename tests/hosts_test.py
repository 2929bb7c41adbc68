"""What the environment says of several processes; tests/multi_process/ has real ones."""

import pytest

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
