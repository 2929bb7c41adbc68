"""The file system of gs:// for everything that this package, Orbax and epath do there; see `runtime.gcs`.

It differs from that of gcsfs, which it extends, in three ways:

- Listings are never cached: other processes make and end runs meanwhile.
- Each call makes as few requests as it can. Objects are written whole, so nothing needs a folder or a temporary name.
- A server that does not answer is asked again for RETRY_SECONDS, and then nothing is asked for longer than one attempt.
"""

import asyncio
import io
import random
import re
import time
import urllib.parse
from typing import Any

import aiohttp
import google.auth.exceptions
from fsspec import asyn
from gcsfs.core import GCSFileSystem
from gcsfs.retry import HttpError, is_retriable

from gpicl_flax.errors import StorageError, UsageError, first_line
from gpicl_flax.runtime.gcs import RETRY_SECONDS, MissingRight

_CONNECT_SECONDS, _SILENCE_SECONDS = 15.0, 60.0  # after which an attempt has failed
_FIRST_DELAY, _LONGEST_DELAY = 0.5, 10.0  # seconds between attempts
_PERMISSION = re.compile(r"storage\.\w+\.\w+")


_Base: Any = GCSFileSystem  # what this class overrides takes fewer arguments here


class GcsFileSystem(_Base):
    """gs:// without a cache, in few requests, with bounded retries.

    Raises:
      StorageError: the server does not answer for RETRY_SECONDS, or refuses a request.
      UsageError: a bucket does not exist, or the right to a request is missing.
    """

    def __init__(self, *args, **kwargs):
        kwargs["use_listings_cache"] = False
        super().__init__(*args, **kwargs)
        self.requests_timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=_CONNECT_SECONDS, sock_read=_SILENCE_SECONDS
        )
        self._away_since: float | None = None  # when the first request failed that no success has followed

    async def _request(self, method, path, *args, **kwargs):
        begun, delay = time.monotonic(), _FIRST_DELAY
        while True:
            try:
                answer = await _Base._request.__wrapped__(self, method, path, *args, **kwargs)
            except Exception as error:
                if not _is_passing(error):
                    self._away_since = None
                    raise _in_words(error, path, args) from error
                now = time.monotonic()
                self._away_since = self._away_since or now
                # One bad object is given up as well, even if others still answer.
                if now - min(self._away_since, begun) > RETRY_SECONDS:
                    raise _in_words(error, path, args) from error
            else:
                self._away_since = None
                return answer
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))
            delay = min(2 * delay, _LONGEST_DELAY)

    async def _info(self, path, generation=None, **kwargs):
        bucket, key, _ = self.split_path(self._strip_protocol(path).rstrip("/"))
        if not key:
            await self._call_list_objects(bucket, maxResults=1)  # raises if there is no such bucket
            return {"name": bucket, "size": 0, "type": "directory"}
        # One listing shows files and folders. "0" comes after "/": it ends before other names with the same beginning.
        objects, prefixes = await self._sequential_list_objects_helper(bucket, "/", None, f"{key}0", key, False, None)
        for each in objects:
            if each["name"] == f"{bucket}/{key}":
                return each
        if f"{key}/" in prefixes:
            return {"name": f"{bucket}/{key}", "size": 0, "type": "directory"}
        raise FileNotFoundError(f"gs://{bucket}/{key}")

    async def _isdir(self, path):
        try:
            return (await self._info(path))["type"] == "directory"
        except FileNotFoundError:
            return False

    async def _mkdir(self, path, *args, **kwargs):
        pass  # objects need no folders, and buckets are made by their owners

    mkdir = asyn.sync_wrapper(_mkdir)

    async def _rm(self, path, recursive=False, maxdepth=None, batchsize=100):
        if not isinstance(path, str):
            return await super()._rm(path, recursive, maxdepth, batchsize)
        if not recursive:
            return await self._rm_file(path)
        files = await self._find(path)
        if not files:
            raise FileNotFoundError(path)
        failed = [each for each in await self._delete_files(files, batchsize) if isinstance(each, Exception)]
        for error in failed:
            if not isinstance(error, FileNotFoundError) and "No such object" not in str(error):
                raise error
        return files

    rm = asyn.sync_wrapper(_rm)

    def _open(self, path, mode="rb", **kwargs):
        if mode == "rb":
            return io.BytesIO(self.cat_file(path))
        if mode == "wb":
            return _Upload(self, path)
        return super()._open(path, mode, **kwargs)


class _Upload(io.BytesIO):
    """A file that is open for writing: one upload when it is closed, and none if an error ends its block."""

    def __init__(self, file_system: GcsFileSystem, path: str):
        super().__init__()
        self._file_system, self._path = file_system, path

    def __exit__(self, kind, error, traceback) -> None:
        if kind is not None:
            super().close()
        self.close()

    def close(self) -> None:
        if not self.closed:
            data = self.getvalue()
            super().close()
            self._file_system.pipe_file(self._path, data)

    def __del__(self):
        super().close()  # a forgotten file is not complete


def _is_passing(error: Exception) -> bool:
    """Returns whether another attempt may succeed."""
    if isinstance(error, google.auth.exceptions.DefaultCredentialsError):
        return False
    return is_retriable(error) or isinstance(error, (TimeoutError, ConnectionError))


def _in_words(error: Exception, path: str, names: tuple[str, ...]) -> Exception:
    """Returns the exception to raise for a failed request: an OSError that callers expect, or a GpiclError."""
    place, bucket = _place(path, names)
    reason = first_line(error)
    if isinstance(error, FileNotFoundError):
        if place == f"gs://{bucket}":  # a listing or an upload, which need only the bucket
            return UsageError(f"there is no bucket gs://{bucket}: make it first, or name another one")
        return FileNotFoundError(place)
    if isinstance(error, FileExistsError):
        return FileExistsError(place)
    if _is_passing(error):
        return StorageError(
            f"gs://{bucket} has not answered for {RETRY_SECONDS / 60:.0f} minutes ({reason}): once it does, start the "
            "same command again, which goes on from the last checkpoint"
        )
    code = getattr(error, "code", None)
    if str(error).startswith("Forbidden") or code in (401, 403):
        if found := _PERMISSION.search(str(error)):
            return MissingRight(place, found[0])
        return UsageError(f"{place}: access is refused ({reason}): log in with gcloud, or ask the bucket's owner")
    if isinstance(error, google.auth.exceptions.GoogleAuthError):
        return UsageError(f"{place}: no Google credentials were found ({reason}): log in with gcloud")
    if isinstance(error, (HttpError, ValueError)):
        return StorageError(f"{place}: the storage server refuses a request ({reason})")
    return error


def _place(path: str, names: tuple[str, ...]) -> tuple[str, str]:
    """Returns the object of a request as gs://BUCKET/NAME, and its bucket."""
    text = path.format(*[urllib.parse.quote(str(name), safe="") for name in names])
    found = re.search(r"(?:^|/)b/([^/?]+)(?:/o/([^/?]+))?", text)
    if not found:
        return text, ""
    bucket, key = (urllib.parse.unquote(part or "") for part in found.groups())
    return f"gs://{bucket}{'/' * bool(key)}{key}", bucket
