"""The real gpicl, whose runs stand still in the middle while $HELD_GPICL/hold exists, until they are told to save.

A process that stands still says so in $HELD_GPICL/TASK.PROCESS, with its pid.
"""

import os
import pathlib
import time

from gpicl_flax.cli.main import run_process
from gpicl_flax.runtime import preemption

FOLDER = pathlib.Path(os.environ["HELD_GPICL"])
DISPATCHES = 8


class HeldStopRequest(preemption.StopRequest):
    """Is asked after every dispatch, and answers late."""

    asked, is_told, is_requested = 0, False, False

    def _note(self, number, frame):
        self.is_told = True
        super()._note(number, frame)

    @property
    def requested(self):
        self.asked += 1
        if self.asked == DISPATCHES + 1:
            own = FOLDER / f"{os.environ['SLURM_ARRAY_TASK_ID']}.{os.environ['SLURM_PROCID']}"
            (own.parent / f"{own.name}.new").write_text(str(os.getpid()))
            (own.parent / f"{own.name}.new").rename(own)
        while self.asked > DISPATCHES and (FOLDER / "hold").exists() and not self.is_told:
            time.sleep(0.05)
        return self.is_requested

    @requested.setter
    def requested(self, value):
        self.is_requested = value


preemption.StopRequest = HeldStopRequest
run_process()
