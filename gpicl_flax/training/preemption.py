"""Being told to stop: SIGTERM and Ctrl-C become a request that the loop obeys after saving."""

import signal
import threading


class StopRequest:
    """While active, notes the first SIGTERM or SIGINT in `requested`; a second one acts as if nothing were here."""

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self):
        self.requested = False
        self._previous = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():  # Python allows handlers nowhere else
            self._previous = {number: signal.signal(number, self._note) for number in self.SIGNALS}
        return self

    def __exit__(self, *_):
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _note(self, *_):
        self.requested = True
        self.__exit__()
