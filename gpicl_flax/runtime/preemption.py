"""Preemption: turns SIGTERM and Ctrl-C into a request, which the loop obeys after saving."""

import signal
import threading
import time

# A host that is shut down can send one SIGTERM to every process, and a start-up script that forwards its own signals
# sends another one.
ECHO_SECONDS = 2.0


class StopRequest:
    """While active, records the first SIGTERM or SIGINT in `requested`.

    One that arrives more than ECHO_SECONDS later has its usual effect.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self):
        self.requested = False
        self._noted_at = 0.0
        self._previous = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():  # Python allows handlers only there
            self._previous = {number: signal.signal(number, self._note) for number in self.SIGNALS}
        return self

    def __exit__(self, *_):
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _note(self, number, _):
        if not self.requested:
            self.requested, self._noted_at = True, time.monotonic()
        elif time.monotonic() - self._noted_at > ECHO_SECONDS:
            self.__exit__()
            signal.raise_signal(number)
