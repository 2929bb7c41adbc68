"""Caches that save time in later runs: decoded images and compiled programs. Deleting them loses nothing."""

import functools
import hashlib
import os
import pathlib
import platform
import threading
from typing import Any

# Settings of JAX; their names in capitals are those of environment variables.
_FOLDER, _MIN_SECONDS = "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs"


def folder() -> pathlib.Path:
    """Returns $XDG_CACHE_HOME/gpicl_flax, or ~/.cache/gpicl_flax."""
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "gpicl_flax"


def keep_compiled_programs() -> None:
    """Lets JAX keep compiled programs, so that a restarted run begins at once. Called before JAX is used.

    $JAX_COMPILATION_CACHE_DIR overrides the folder. If it is set to nothing, there is no cache. It should be on a local
    disk: a program waits while JAX reads or writes it, so that on gs:// an outage blocks every new program.
    """
    programs = _programs()
    if programs is not None:
        os.environ.setdefault(_FOLDER.upper(), programs)


class _KeptPrograms:
    """A context in which JAX keeps what it compiles, in a process that may also compile programs of others.

    Nothing changes if the user has determined where JAX keeps programs, or that it does not. Otherwise JAX has its own
    settings again as soon as no thread is in the context.
    """

    def __init__(self):
        self._lock, self._num_inside, self._before = threading.Lock(), 0, {}

    def __enter__(self) -> None:
        with self._lock:
            self._num_inside += 1
            if self._num_inside == 1:
                self._before = _set_jax(_our_settings())

    def __exit__(self, *_) -> None:
        from jax.experimental.compilation_cache import compilation_cache

        with self._lock:
            self._num_inside -= 1
            if self._num_inside == 0:
                _set_jax(self._before)
                if _FOLDER in self._before:
                    compilation_cache.reset_cache()  # otherwise JAX would stay with the folder that it has used


kept_programs = _KeptPrograms()


def _set_jax(settings: dict[str, Any]) -> dict[str, Any]:
    """Changes settings of JAX and returns their former values."""
    import jax

    before = {name: getattr(jax.config, name) for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    return before


def _our_settings() -> dict[str, Any]:
    """Returns the settings with which JAX keeps a learner's programs, which compile in less than JAX's own minimum."""
    import jax

    programs, named = _programs(), getattr(jax.config, _FOLDER)
    settings = {} if _MIN_SECONDS.upper() in os.environ else {_MIN_SECONDS: 0.0}
    if programs is None or os.environ.get(_FOLDER.upper(), programs) != programs or named not in (None, programs):
        return {}
    return settings if named else settings | {_FOLDER: programs}


def _programs() -> str | None:
    """Returns our own folder of programs; None if it cannot be made, because the home folder is not writable."""
    programs = folder() / "xla" / _processor()
    try:
        programs.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return str(programs)


@functools.cache
def _processor() -> str:
    """Returns a name for the instructions that this processor has.

    JAX's own keys do not contain it, and several kinds of processor can share a home folder.
    """
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    features = {line for line in lines if line.lower().startswith(("flags", "features", "model name"))}
    return hashlib.sha256("\n".join([platform.machine(), *sorted(features)]).encode()).hexdigest()[:16]
