"""The leases on the runs of a stack. If several processes train together, the primary one holds them."""

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from gpicl_flax.errors import GpiclError, Preempted, StorageError
from gpicl_flax.records import lease
from gpicl_flax.records.run_folder import RunFolder
from gpicl_flax.runtime import distributed, gcs
from gpicl_flax.runtime.preemption import StopRequest

_POLL_SECONDS = 1.0


class LeaseUnavailable(GpiclError):
    """Some runs of a stack are trained by other processes or have ended.

    Attributes:
      by: maps the index of each such run to the record of the process that trains it; None: it has ended meanwhile.
    """

    def __init__(self, by: Mapping[int, lease.LeaseRecord | None]):
        super().__init__(f"{len(by)} runs are trained by others or have ended")
        self.by = by


@contextlib.contextmanager
def hold(folders: Sequence[RunFolder], wait: StopRequest | None = None) -> Iterator[Callable[[], None]]:
    """Holds the leases on all these runs, or none.

    Args:
      folders: those of the runs.
      wait: if given, block while it is unclear whether the holder of a lease is alive, until this stop is requested.

    Yields:
      A function that raises `lease.LeaseLost` once one of them is lost.

    Raises:
      LeaseUnavailable: other processes have some of them, or runs have ended.
      GpiclError, Preempted: see `wait_until_available`.
    """
    held: list[lease.Lease] = []

    def acquire_one(folder: RunFolder) -> lease.LeaseRecord | str | None:
        result = lease.acquire(folder)
        if isinstance(result, lease.LeaseRecord):
            return result
        held.append(result)
        return folder.ended  # it may have ended since the last check

    def acquire() -> dict[str, Any]:
        results = enumerate(gcs.each(acquire_one, folders, folders[0].path))
        return {
            str(index): dataclasses.asdict(result) if isinstance(result, lease.LeaseRecord) else None
            for index, result in results
            if result is not None
        }

    def check() -> None:
        for each in held:
            each.check()

    def release(kind, error, traceback) -> None:
        # After an error, storage may be what failed. Then the leases end by themselves.
        with contextlib.suppress(StorageError) if error else contextlib.nullcontext():
            gcs.each(lambda each: each.__exit__(kind, error, traceback), held, folders[0].path)

    while True:
        if wait is not None:
            for folder in folders:
                wait_until_available(folder, wait)
        with contextlib.ExitStack() as stack:
            stack.push(release)
            unavailable = decide(acquire)
            if not unavailable:
                yield check
                return
            gcs.each(lease.Lease.withdraw, held, folders[0].path)
            held.clear()
        records = {int(index): by and lease.LeaseRecord(**by) for index, by in unavailable.items()}
        if wait is None or None in records.values():  # a run that has ended will not become available
            raise LeaseUnavailable(records)


def wait_until_available(folder: RunFolder, stop: StopRequest, sleep: Callable[[float], None] = time.sleep) -> None:
    """Blocks until the lease can be acquired. While it is unclear whether the holder is alive, keeps polling.

    Raises:
      GpiclError: the holder had a heartbeat meanwhile.
      Preempted: a stop was requested.
    """

    def living_holder() -> str | None:
        first = now = lease.newest(folder)
        while now is not None and now.holds and not stop.requested:
            if first is None or now.is_here or (now.number, now.time) != (first.number, first.time):
                return f"host {now.host} (process {now.pid})"
            sleep(_POLL_SECONDS)
            now = lease.newest(folder)
        return None

    alive = decide(living_holder)
    if alive:
        raise GpiclError(f"{folder} is being trained by {alive}; wait for its end, or stop it there first")
    if any_of(stop.requested):
        raise Preempted("stopped before the run started; start it again to go on")


def decide(compute: Callable[[], Any]) -> Any:
    """Returns what `compute` returns in the primary process, which is plain JSON. All processes call this together."""
    return json.loads(
        distributed.broadcast(
            json.dumps(compute() if distributed.is_primary() else None), "what the first host decides"
        )
    )


def any_of(flag: bool) -> bool:
    """Returns whether `flag` is true in any process. All processes call this together."""
    return bool(distributed.max_over_processes(int(flag), "whether to stop"))
