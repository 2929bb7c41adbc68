"""Small objects on gs://, in one request each. Importing it makes all of gs:// use one file system.

That is `gcs_file_system.GcsFileSystem`, loaded at the first use, because it needs the extra `tpu` (gcsfs).
"""

import asyncio
import base64
import binascii
import os
import time
import uuid
from collections.abc import Callable, Coroutine, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import fsspec
from etils import epath
from etils.epath import backend
from fsspec import asyn

from gpicl_flax.errors import StorageError, UsageError

RETRY_SECONDS = 180.0  # how long a server that does not answer is asked again
_SHOWN_BYTES = 4000  # of a small file, which listings show; all metadata of an object may have 8 KiB
_CONTENTS = "contents"
_AT_ONCE = 64  # requests; the server would serve more, this process would not
_THREADS = 32
_sync: Any = asyn.sync  # its annotation says that it returns nothing

for _protocol in ("gs", "gcs"):
    fsspec.register_implementation(
        _protocol,
        "gpicl_flax.runtime.gcs_file_system.GcsFileSystem",
        clobber=True,
        errtxt="gs:// needs gcsfs: pip install 'gpicl_flax[tpu]'",
    )
# Where TensorFlow is installed, epath would use its file system, which is another one with other errors.
os.environ.setdefault("EPATH_USE_TF", "false")


class Entry(NamedTuple):
    """An object in a listing.

    Attributes:
      size: in bytes.
      modified: unix time.
      contents: its bytes if the listing shows them, otherwise None.
    """

    size: int
    modified: float
    contents: bytes | None


class MissingRight(UsageError):
    """A right to something on gs:// is missing.

    Attributes:
      right: its name, such as storage.objects.create.
    """

    def __init__(self, place: str, right: str):
        self.right = right
        super().__init__(f"{place}: the right {right} is missing: ask for {_role(right)} on the bucket")


def check_rights(folder: epath.PathLike) -> None:
    """Raises UsageError, in a second, if the bucket of a run folder is missing, or any right that a run needs there."""
    fs = file_system()
    bucket = fs.split_path(fs._strip_protocol(str(folder)))[0]
    probe = f"{str(folder).rstrip('/')}/.rights-{uuid.uuid4().hex}"
    probes = [probe]
    needs: list[Callable[[], Any]] = [
        # A process that was killed here has left its own.
        lambda: probes.extend(f"{probe.rpartition('/')[0]}/{name}" for name in listing(folder, ".rights-")),
        lambda: write({probe: b"This file shows that runs can be written here."}),
        lambda: read([probe]),
        lambda: remove(probes),
        lambda: _together([fs._call("GET", "b/{}", bucket)]),  # Orbax asks for it before it removes a checkpoint
    ]
    missing = []
    for need in needs:
        try:
            need()
        except MissingRight as error:
            missing.append(error.right)
        except FileNotFoundError:  # what could not be written, or another process has removed
            pass
    if missing:
        roles = " and ".join(dict.fromkeys(map(_role, missing)))
        raise UsageError(
            f"gs://{bucket}: runs need rights that are missing here: {', '.join(dict.fromkeys(missing))}; ask for "
            f"{roles} on the bucket"
        )


def is_remote(path: epath.PathLike) -> bool:
    """Returns whether a path is on remote storage."""
    return "://" in str(path)


def file_system() -> Any:
    """Returns the file system of gs://, which epath has as well."""
    return backend.fsspec_backend.fs("gs://")


def write(contents: Mapping[str, bytes], *, create: bool = False, show: bool = True) -> dict[str, str]:
    """Writes objects, all at once, each in one request.

    Args:
      contents: the bytes of each by its path.
      create: only if there is none of this name yet.
      show: let listings show the contents of small ones, which are sent a second time for it.

    Returns:
      The generation of each.

    Raises:
      FileExistsError: one exists, with `create`.
    """
    fs, mode = file_system(), "create" if create else "overwrite"
    answers = _together(
        fs._pipe_file(fs._strip_protocol(path), data, metadata=_shown(data) if show else None, mode=mode)
        for path, data in contents.items()
    )
    # A large object is uploaded in parts, without an answer that says its generation.
    return {
        path: answer["generation"] if isinstance(answer, dict) else generation_and_size(path)[0]
        for path, answer in zip(contents, answers, strict=True)
    }


def read(paths: Iterable[str], start: int | None = None) -> list[bytes]:
    """Returns the contents of objects, all read at once; raises FileNotFoundError if one is missing.

    With a negative `start`, only that many bytes from the end are read.
    """
    fs = file_system()
    return _together(_read(fs, fs._strip_protocol(path), start) for path in paths)


def listing(folder: epath.PathLike, beginning: str = "") -> dict[str, Entry]:
    """Returns all objects below a folder by their paths in it, in their order; none if there is no such folder.

    Args:
      folder: the folder.
      beginning: with which the paths begin.
    """
    return _entries(folder, delimiter="", beginning=beginning)[0]


def names(folder: epath.PathLike) -> list[str]:
    """Returns the names of the files and folders in a folder, ascending; none if there is no such folder."""
    files, folders = _entries(folder, delimiter="/")
    return sorted({*files, *folders})


def append(path: str, generation: str, parts: Iterable[str]) -> str:
    """Appends other objects to an object, without moving a byte. Returns its new generation.

    Args:
      path: the object.
      generation: the one that it has.
      parts: the paths of at most 31 others, in order.

    Raises:
      FileExistsError: the object has another generation.
    """
    fs = file_system()
    bucket, key, _ = fs.split_path(fs._strip_protocol(path))
    sources = [key, *(fs.split_path(fs._strip_protocol(part))[1] for part in parts)]
    body = {"kind": "storage#composeRequest", "sourceObjects": [{"name": name} for name in sources]}
    # Without the generation, a request whose answer was lost would append twice when it is sent again.
    (answer,) = _together(
        [fs._call("POST", "b/{}/o/{}/compose", bucket, key, json=body, ifGenerationMatch=generation, json_out=True)]
    )
    return answer["generation"]


def generation_and_size(path: str) -> tuple[str, int]:
    """Returns the generation of an object, and its size in bytes; raises FileNotFoundError if there is none."""
    info = file_system().info(path)
    return info["generation"], info["size"]


def each[Item, Result](
    function: Callable[[Item], Result], items: Iterable[Item], place: epath.PathLike
) -> list[Result]:
    """Returns what a function returns for each item: many at once if `place` is remote, otherwise one after another.

    Raises the first exception, once all calls have ended.
    """
    if not is_remote(place):
        return [function(item) for item in items]
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(function, items))


def busy_seconds() -> float:
    """Returns the processor time of the thread that sends the requests; 0 if there were none."""
    loop = asyn.loop[0]
    if loop is None:
        return 0.0

    async def measure() -> float:
        return time.thread_time()

    return _sync(loop, measure)


def remove(paths: Iterable[str]) -> None:
    """Removes objects, all at once. Some may be missing."""
    fs = file_system()
    _together((fs._rm_file(fs._strip_protocol(path)) for path in paths), allowed=FileNotFoundError)


def _together(calls: Iterable[Coroutine], allowed: type[Exception] | tuple = ()) -> list[Any]:
    """Returns the results of coroutines of the file system, at most _AT_ONCE of them running at a time.

    Raises the first exception that is not allowed, once all have ended.
    """
    calls = list(calls)

    async def run() -> list[Any]:
        free = asyncio.Semaphore(_AT_ONCE)

        async def one(call: Coroutine) -> Any:
            async with free:
                return await call

        return await asyncio.gather(*map(one, calls), return_exceptions=True)

    results = _sync(file_system().loop, run)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, allowed):
            raise result
    return results


def _role(right: str) -> str:
    """Returns the role that has a right."""
    return "roles/storage.legacyBucketReader" if right.startswith("storage.buckets") else "roles/storage.objectUser"


async def _read(fs: Any, path: str, start: int | None) -> bytes:
    try:
        return await fs._cat_file(path, start=start)
    except StorageError as error:
        # The end of an empty object cannot be asked for.
        if start is not None and str(getattr(error.__cause__, "code", "")) == "416":
            return b""
        raise


def _entries(folder: epath.PathLike, delimiter: str, beginning: str = "") -> tuple[dict[str, Entry], list[str]]:
    """Returns the objects below a folder by their paths in it, and the names of the folders up to the delimiter."""
    fs = file_system()
    path = fs._strip_protocol(str(folder)).rstrip("/")
    bucket, key, _ = fs.split_path(path)
    prefix = f"{key}/" if key else ""
    ((objects, folders),) = _together([fs._do_list_objects(bucket, delimiter=delimiter, prefix=prefix + beginning)])
    found = {}
    for each in objects:
        name = each["name"].removeprefix(f"{bucket}/{prefix}")
        if name:  # not a placeholder of the folder itself, which other tools make
            found[name] = Entry(each["size"], each["mtime"].timestamp(), _contents(each.get("metadata")))
    return found, [name.removeprefix(prefix).rstrip("/") for name in folders]


def _shown(data: bytes) -> dict[str, str] | None:
    """Returns the metadata by which a listing shows the contents of a small object."""
    return {_CONTENTS: base64.b64encode(data).decode()} if len(data) <= _SHOWN_BYTES else None


def _contents(metadata: Mapping[str, str] | None) -> bytes | None:
    try:
        return base64.b64decode(metadata[_CONTENTS], validate=True) if metadata and _CONTENTS in metadata else None
    except binascii.Error:  # somebody else's metadata
        return None
