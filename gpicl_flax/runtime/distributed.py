"""Cooperation of several processes: they find each other, wait for each other, agree, and print only once.

A slice of TPUs has several hosts, and each has a process that runs the same program. Messages go through JAX's
coordination service, which runs in the first process, so that they need no device. With a single process, nothing here
has any effect.
"""

import contextlib
import importlib.util
import itertools
import os
import pathlib
import socket
import sys
import threading
from typing import Any

from gpicl_flax.errors import GpiclError, UsageError, first_line

CONNECT_SECONDS = "GPICL_CONNECT_SECONDS"
_ADDRESS, _COUNT, _INDEX, _PORT = (
    "JAX_COORDINATOR_ADDRESS",
    "JAX_NUM_PROCESSES",
    "JAX_PROCESS_ID",
    "JAX_COORDINATOR_PORT",
)
_WAIT_SECONDS = 300.0
_LEAVE_SECONDS = 15.0
_HEARTBEAT_SECONDS = 60
_WATCH_SECONDS = 1.0
_FAILED = "gpicl/failed"
_calls = itertools.count()  # all processes make the same calls, so the same number identifies the same call

_ending = threading.Event()


def connect() -> None:
    """Connects to the other processes, if there are any. Called once, before JAX is used.

    The environment identifies them: JAX_COORDINATOR_ADDRESS (host:port, or a host and JAX_COORDINATOR_PORT),
    JAX_NUM_PROCESSES and JAX_PROCESS_ID. On Cloud TPU, including GKE, and in a step of Slurm with several tasks, JAX
    determines these itself.
    GPICL_CONNECT_SECONDS limits how long they wait for each other (300). If jax.distributed.initialize was called
    before, they are already connected.

    Raises:
      UsageError: the environment is incomplete.
      GpiclError: some of them did not connect in time.
    """
    if _count() == 1:
        _meet()
    if _count() > 1:
        _client().key_value_set(f"gpicl/host/{_index()}", socket.gethostname())
        _watcher.start()


def _meet() -> None:
    given = {name: os.environ[name] for name in (_ADDRESS, _COUNT, _INDEX) if os.environ.get(name)}
    if not given and not _on_cloud_tpu() and not _in_slurm_step():
        return
    seconds = _number(CONNECT_SECONDS, os.environ.get(CONNECT_SECONDS, f"{_WAIT_SECONDS:.0f}"))
    settings = (_settings(given) if given else {}) | _slurm_devices()
    import jax  # takes a second, which other commands avoid

    jax.config.update("jax_enable_preemption_service", False)  # it would handle SIGTERM, see runtime/preemption.py
    count = settings.get("num_processes", "all")
    where = settings.get("coordinator_address", "the first host")
    apart = (
        f"{count} processes did not meet at {where} within {seconds} s: is the same command running on every host, and "
        f"the port open? {_PORT} chooses another, {CONNECT_SECONDS} waits longer"
    )
    # After its own timeout, JAX ends a process with pages of internal messages, so a timer ends it first.
    alone = threading.Timer(seconds, _end_with, [apart])
    alone.daemon = True
    alone.start()
    try:
        jax.distributed.initialize(
            **settings,
            initialization_timeout=seconds + int(_WAIT_SECONDS),
            heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=int(_LEAVE_SECONDS),
        )
    except Exception as error:  # JAX and its service raise several kinds
        raise GpiclError(f"{apart} ({first_line(error)})") from error
    finally:
        alone.cancel()


def _settings(given: dict[str, str]) -> dict[str, Any]:
    missing = [name for name in (_ADDRESS, _COUNT, _INDEX) if name not in given]
    if missing:
        raise UsageError(f"{', '.join(given)} set, but not {', '.join(missing)}; several processes need all of them")
    address, count, index = given[_ADDRESS], _number(_COUNT, given[_COUNT]), _number(_INDEX, given[_INDEX])
    if os.environ.get(_PORT):
        address = f"{address.rpartition(':')[0] or address}:{_number(_PORT, os.environ[_PORT])}"
    if ":" not in address:
        raise UsageError(f"{_ADDRESS} = {address!r} must be host:port, unless {_PORT} names the port")
    if index >= count:
        raise UsageError(f"{_INDEX} = {index} must be less than {_COUNT} = {count}")
    return {"coordinator_address": address, "num_processes": count, "process_id": index}


def _number(name: str, text: str) -> int:
    if not text.isdecimal():
        raise UsageError(f"{name} must be a number, not {text!r}")
    return int(text)


def _on_cloud_tpu() -> bool:
    """Returns whether this machine has TPU chips that JAX would use."""
    if os.environ.get("JAX_PLATFORMS", "tpu").split(",")[0] != "tpu" or importlib.util.find_spec("libtpu") is None:
        return False
    return any(pathlib.Path("/dev").glob("accel*")) or any(pathlib.Path("/dev/vfio").glob("[0-9]*"))


def _in_slurm_step() -> bool:
    """Returns whether srun started this process as one of several. A batch script has no variables of a step."""
    return os.environ.get("SLURM_STEP_NUM_TASKS", "1") != "1" and "SLURM_PROCID" in os.environ


def _slurm_devices() -> dict[str, Any]:
    """Returns the argument with which JAX uses all devices of a node, if this is the node's only process.

    By default, a process of Slurm uses one device, the one that has its number on the node.
    """
    is_alone = os.environ.get("SLURM_STEP_NUM_TASKS") == os.environ.get("SLURM_STEP_NUM_NODES")
    if not _in_slurm_step() or not is_alone or os.environ.get("JAX_LOCAL_DEVICE_IDS"):
        return {}
    return {"local_device_ids": []}  # no choice


def is_primary() -> bool:
    """Returns whether this process is the primary one, which prints, and writes files that are written once."""
    return _index() == 0


def barrier(name: str, seconds: float = _WAIT_SECONDS) -> None:
    """Blocks until every process has called it.

    Raises:
      GpiclError: some processes did not call it in time; it names them.
    """
    if _count() == 1:
        return
    key = f"gpicl/{next(_calls)}/{name}"
    _client().key_value_set(f"{key}/{_index()}", "here")
    _wait(key, name, seconds)


def max_over_processes(value: int, name: str, seconds: float = _WAIT_SECONDS) -> int:
    """Returns the largest value of all processes; raises as `barrier` does."""
    return max(int(text) for text in _gather(str(value), name, seconds))


def broadcast(text: str, name: str, seconds: float = _WAIT_SECONDS) -> str:
    """Returns the text of the primary process; raises as `barrier` does."""
    return _gather(text, name, seconds)[0]


def check_same(text: str, name: str) -> None:
    """Raises UsageError on every process if one has a different text than the first."""
    texts = _gather(text, name, _WAIT_SECONDS)
    others = [index for index, other in enumerate(texts) if other != texts[0]]
    if others:
        raise UsageError(f"{_names(others)} started with another {name} than {_names([0])}; give all hosts the same")


def abort(exit_code: int, message: str) -> None:
    """Ends a command that failed here, perhaps only here, so that the other processes do not wait for this one.

    Does not return if there are other processes.
    """
    if _count() == 1:
        return
    _ending.set()
    with contextlib.suppress(Exception):
        _client().key_value_set(f"{_FAILED}/first", f"{_names([_index()])}: {message}")
    with contextlib.suppress(Exception):
        _client().wait_at_barrier("gpicl/leave", int(1000 * _LEAVE_SECONDS))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)  # a regular end of the service would wait for processes that are stuck


def disconnect() -> None:
    """Ends a command that ends on all processes, once all have called it."""
    if _count() == 1:
        return
    import jax

    _ending.set()
    _watcher.join()
    barrier("the end")
    jax.distributed.shutdown()


def _end_with(message: str) -> None:
    print(f"\ngpicl: error: {message}", file=sys.stderr, flush=True)
    os._exit(1)


def _watch() -> None:
    """Ends this process when another one has failed, because it might otherwise wait for that one forever."""
    while not _ending.wait(_WATCH_SECONDS):
        try:
            failures = _client().key_value_dir_get(_FAILED)
        except Exception:
            return  # the service is gone, and so this process will soon be, too
        if failures:
            break
    else:
        return
    if not _ending.wait(2 * _LEAVE_SECONDS):  # a process that fails in the same way reports it and ends by itself
        _end_with(failures[0][1])


_watcher = threading.Thread(target=_watch, daemon=True)


def _gather(text: str, name: str, seconds: float) -> list[str]:
    """Returns the texts of all processes, in their order."""
    if _count() == 1:
        return [text]
    key = f"gpicl/{next(_calls)}/{name}"
    _client().key_value_set(f"{key}/{_index()}", text)
    _wait(key, name, seconds)
    return [_client().blocking_key_value_get(f"{key}/{i}", int(1000 * seconds)) for i in range(_count())]


def _wait(key: str, name: str, seconds: float) -> None:
    try:
        _client().wait_at_barrier(key, int(1000 * seconds))
    except Exception as error:  # the service raises several kinds
        here = {int(entry.rpartition("/")[2]) for entry, _ in _client().key_value_dir_get(key)}
        missing = [index for index in range(_count()) if index not in here]
        who = f"{_names(missing)} did not come" if missing else first_line(error)
        raise GpiclError(
            f"waited {seconds:.0f} s for {name}: {who}; end the command on every host and start it again on all"
        ) from error


def _names(indices: list[int]) -> str:
    """Returns the numbers of processes with the names of their hosts."""
    hosts = dict(_client().key_value_dir_get("gpicl/host"))
    known = {int(key.rpartition("/")[2]): host for key, host in hosts.items()}
    return ", ".join(f"process {index} ({known.get(index, 'unknown host')})" for index in indices)


def _index() -> int:
    """Returns the number of this process."""
    return getattr(_state(), "process_id", 0)


def _count() -> int:
    """Returns the number of processes."""
    return getattr(_state(), "num_processes", 1)


def _client():
    return _state().client


def _state() -> Any:
    """Returns JAX's state of the processes; None while JAX is not imported.

    JAX has no public access to it that does not start a backend.
    """
    return getattr(sys.modules.get("jax._src.distributed"), "global_state", None)
