"""Caches that save time in later runs: decoded images and compiled programs. Deleting them loses nothing."""

import contextlib
import hashlib
import os
import pathlib
import platform


def folder() -> pathlib.Path:
    """Returns $XDG_CACHE_HOME/gpicl_flax, or ~/.cache/gpicl_flax."""
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "gpicl_flax"


def keep_compiled_programs() -> None:
    """Lets JAX keep compiled programs, so that a restarted run begins at once. Called before JAX is used.

    $JAX_COMPILATION_CACHE_DIR overrides the folder, which may be on gs://. If it is set to nothing, there is no cache.
    """
    programs = folder() / "xla" / _processor()
    with contextlib.suppress(OSError):  # the home folder may not be writable
        programs.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(programs))


def _processor() -> str:
    """Returns a name for the instructions that this processor has.

    JAX's own keys do not contain it, and several kinds of processor can share a home folder.
    """
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    features = {line for line in lines if line.lower().startswith(("flags", "features", "model name"))}
    return hashlib.sha256("\n".join([platform.machine(), *sorted(features)]).encode()).hexdigest()[:16]
