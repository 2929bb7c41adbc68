"""What is kept between runs to save time: decoded images and compiled programs. Deleting it loses nothing."""

import contextlib
import hashlib
import os
import pathlib
import platform


def folder() -> pathlib.Path:
    """$XDG_CACHE_HOME/gpicl_flax, or ~/.cache/gpicl_flax."""
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "gpicl_flax"


def keep_compiled_programs() -> None:
    """Lets JAX keep what it compiles, so that a run that is started again begins at once.

    Call it before JAX is used.

    $JAX_COMPILATION_CACHE_DIR, where it is set, wins: another folder, also gs://, or nothing to turn it off.
    """
    programs = folder() / "xla" / _processor()
    with contextlib.suppress(OSError):  # a home that cannot be written to
        programs.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(programs))


def _processor() -> str:
    """Names the instructions that this processor has.

    JAX's own keys do not, and several kinds of processor can share a home.
    """
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    features = {line for line in lines if line.lower().startswith(("flags", "features", "model name"))}
    return hashlib.sha256("\n".join([platform.machine(), *sorted(features)]).encode()).hexdigest()[:16]
