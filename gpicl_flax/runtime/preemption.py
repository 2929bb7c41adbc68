"""Being told to stop: SIGTERM and Ctrl-C become a request that the loop obeys after saving."""

import signal
import threading
import time

# A host that goes away can send one SIGTERM to every process, and a start-up script that passes on its own sends
# another.
ECHO_SECONDS = 2.0


class StopRequest:
    """While active, notes the first SIGTERM or SIGINT in `requested`.

    One that comes more than ECHO_SECONDS later acts as if nothing were here.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self):
        self.requested = False
        self._noted_at = 0.0
        self._previous = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():  # Python allows handlers nowhere else
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
