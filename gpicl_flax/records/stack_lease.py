"""The claims of a stack of runs. Of several processes that train together, the first holds them and tells the others."""

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from gpicl_flax.errors import GpiclError, Preempted
from gpicl_flax.records import lease
from gpicl_flax.records.json_lines import Row
from gpicl_flax.records.run_folder import RunFolder
from gpicl_flax.runtime import distributed
from gpicl_flax.runtime.preemption import StopRequest

_POLL_SECONDS = 1.0


class Taken(GpiclError):
    """Some of the runs are not to be had.

    Attributes:
      by: for the index of each such run who trains it; None: it has ended meanwhile.
    """

    def __init__(self, by: Mapping[int, lease.Holder | None]):
        super().__init__(f"{len(by)} runs are trained by others or have ended")
        self.by = by


@contextlib.contextmanager
def hold(folders: Sequence[RunFolder]) -> Iterator[Callable[[], None]]:
    """Holds the claims of all these runs, or none.

    Yields:
      What raises `claim.Lost` once one of them is lost.

    Raises:
      Taken: others have some of them.
    """
    held: list[lease.Claim] = []

    def take() -> dict[str, Any]:
        by = {}
        for index, folder in enumerate(folders):
            result = lease.take(folder)
            if isinstance(result, lease.Holder):
                by[str(index)] = dataclasses.asdict(result)
                continue
            held.append(stack.enter_context(result))
            if folder.ended:  # since it was looked at
                by[str(index)] = None
        return by

    def check() -> None:
        for each in held:
            each.check()

    with contextlib.ExitStack() as stack:
        taken = decide(take)
        if taken:
            for each in held:
                each.withdraw()
            raise Taken({int(index): by and lease.Holder(**by) for index, by in taken.items()})
        yield check


def refuse_while_alive(folder: RunFolder, stop: StopRequest, sleep: Callable[[float], None] = time.sleep) -> None:
    """Returns when the claim on a run is to be had; waits as long as nobody can tell whether its holder lives.

    Raises:
      GpiclError: its holder has given a sign of life.
      Preempted: told to stop.
    """

    def holder() -> str | None:
        first = now = lease.newest(folder)
        while now is not None and now.holds and not stop.requested:
            if now.is_here or (now.number, now.time) != (first.number, first.time):
                return f"host {now.host} (process {now.pid})"
            sleep(_POLL_SECONDS)
            now = lease.newest(folder)
        return None

    alive = decide(holder)
    if alive:
        raise GpiclError(f"{folder} is being trained by {alive}; wait for its end, or stop it there first")
    if any_of(stop.requested):
        raise Preempted("stopped before the run started; start it again to go on")


def decide(compute: Callable[[], Any]) -> Any:
    """What `compute` returns in the first process, which is plain JSON; all processes call this together."""
    return json.loads(
        distributed.share(json.dumps(compute() if distributed.is_first() else None), "what the first host decides")
    )


def any_of(flag: bool) -> bool:
    """Whether it is true in any process; all processes call this together."""
    return bool(distributed.agree(int(flag), "whether to stop"))


def also_checked(check: Callable[[], None], on_row: Callable[[Row], None]) -> Callable[[Row], None]:
    """`on_row`, after a look whether the runs are still held."""
    return lambda row: (check(), on_row(row))
