"""The devices of JAX: whether those that the environment asks for are here."""

import functools
import os
import re
import resource
import subprocess
import sys

import psutil

from gpicl_flax.errors import UsageError, first_line

_PLATFORMS, _FLAGS = "JAX_PLATFORMS", "XLA_FLAGS"
# Bytes that the smallest run needs after JAX is imported: with 1.5e9 it was seen to fail, with 1.9e9 to work.
_ADDRESS_SPACE = 2e9
_OF_FLAGS = re.compile(r"[EF]\d{4} .*flags.*\] ")  # a line of the log, by the file that it comes from
_REFUSED = re.compile(r"for (?:JAX flag|environment) '?(\w+)")


def check() -> None:
    """Starts the backend of JAX. Commands that use JAX call it before they read data, and after `distributed.connect`.

    Raises:
      UsageError: $JAX_PLATFORMS or $XLA_FLAGS ask for something that does not exist here, or a limit of the shell
        leaves too little memory.
    """
    _check_flags(os.environ.get(_FLAGS, ""))
    import jax  # takes a second, which other commands avoid

    _check_address_space()

    try:
        jax.devices()
    except (AssertionError, RuntimeError) as error:  # the former where JAX was installed without that backend
        asked = os.environ.get(_PLATFORMS)
        if not asked:
            raise UsageError(f"JAX cannot use the devices of this machine: {first_line(error)}") from error
        reason = f" ({first_line(error)})" if str(error) else ""
        raise UsageError(
            f"{_PLATFORMS}={asked}: JAX has no such device here; unset it, or set {_PLATFORMS}=cpu{reason}"
        ) from error


def _check_address_space() -> None:
    """Raises UsageError if threads and programs have too little room. XLA would end the process, or wait for ever."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    used = psutil.Process().memory_info().vms
    if limit != resource.RLIM_INFINITY and limit - used < _ADDRESS_SPACE:
        raise UsageError(
            f"the limit of virtual memory (ulimit -v) is {limit / 1e9:.1f} GB, of which {used / 1e9:.1f} GB are used: "
            f"raise it to {(used + _ADDRESS_SPACE) / 1e9:.1f} GB or more, or remove it"
        )


def environment_error(error: ValueError) -> UsageError | None:
    """Returns the error of a user who set an environment variable that JAX refuses when it is imported, if it is that.

    JAX is imported wherever a command first needs it.
    """
    found = _REFUSED.search(str(error))
    if found is None:
        return None
    name = found[1].upper()
    return UsageError(f"{name}={os.environ.get(name, '')}: JAX knows no such value; correct {name}, or unset it")


@functools.cache
def _check_flags(flags: str) -> None:
    """Reads the flags as XLA does in a process of its own, because XLA ends a process for a flag that it does not know.

    It costs a third of a second, only where there are flags.
    """
    if not flags.strip():
        return
    program = "from jaxlib import xla_client; xla_client.CompileOptions()"
    result = subprocess.run(
        [sys.executable, "-P", "-c", program], capture_output=True, text=True, errors="replace", check=False
    )
    complaints = [line.rpartition("] ")[2] for line in result.stderr.splitlines() if _OF_FLAGS.match(line)]
    if result.returncode and complaints:
        raise UsageError(f"{_FLAGS}: {complaints[0].rstrip('.')}; correct {_FLAGS}, or unset it")
