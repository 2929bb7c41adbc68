"""Signals become a request to stop."""

import signal

import pytest

from gpicl_flax.runtime import preemption
from gpicl_flax.runtime.preemption import StopRequest


@pytest.mark.parametrize("number", StopRequest.SIGNALS)
def test_a_signal_that_is_sent_twice_is_one_request(number):
    before = signal.getsignal(number)
    with StopRequest() as stop:
        assert not stop.requested
        signal.raise_signal(number)
        signal.raise_signal(signal.SIGTERM)
        assert stop.requested
    assert signal.getsignal(number) is before


def test_a_later_signal_acts_as_if_nothing_were_here(monkeypatch):
    with StopRequest() as stop, pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
        monkeypatch.setattr(preemption, "ECHO_SECONDS", -1.0)
        signal.raise_signal(signal.SIGINT)
    assert stop.requested
