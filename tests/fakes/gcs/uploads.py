"""The three ways to upload an object: data alone, with metadata in one body of two parts, and in chunks."""

import dataclasses
import json
import re
import uuid
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from tests.fakes.gcs.calls import Call
from tests.fakes.gcs.store import ApiError, Store, StoredObject, check_preconditions

_RANGE = re.compile(r"bytes (?:(?P<first>\d+)-\d+|\*)/(?P<size>\d+|\*)")


@dataclasses.dataclass
class Upload:
    """An upload in chunks. `data` is what came so far; `made` is the object, once all of it is there."""

    bucket: str
    name: str
    query: Mapping[str, str]
    fields: dict[str, Any]
    data: bytearray = dataclasses.field(default_factory=bytearray)
    made: StoredObject | None = None


class Uploads:
    """Uploads in chunks, by their ids."""

    def __init__(self, store: Store):
        self._store = store
        self._open: dict[str, Upload] = {}

    def at_once(self, call: Call) -> StoredObject:
        """Makes an object of one request's body."""
        content_type, info, data = call.headers.get("Content-Type", ""), {}, call.body
        if call.query.get("uploadType") == "multipart":
            info, content_type, data = _two_parts(content_type, call.body)
        return self._put(call.bucket, info.get("name", call.name), call.query, data, _fields(content_type, info))

    def begin(self, call: Call) -> web.Response:
        """Returns, in a header, where the chunks go."""
        info = json.loads(call.body or b"{}")
        name, query = info.get("name", call.name), dict(call.query)
        check_preconditions(query, self._store.bucket(call.bucket).get(name))
        fields = _fields(call.headers.get("X-Upload-Content-Type", ""), info)
        number = uuid.uuid4().hex
        self._open[number] = Upload(call.bucket, name, query, fields)
        place = f"{call.base}/upload/storage/v1/b/{call.bucket}/o?uploadType=resumable&upload_id={number}"
        return web.json_response({}, headers={"Location": place})

    def chunk(self, call: Call) -> web.Response:
        """Adds what is new in a chunk. Without a chunk, `bytes */SIZE`, it says how much is there.

        A client that has lost an answer sends a chunk again: bytes that are there already are left alone.
        """
        upload = self._find(call)
        whole = f"bytes 0-{len(call.body) - 1}/{len(call.body)}" if call.body else "bytes */0"
        match = _RANGE.fullmatch(call.headers.get("Content-Range", whole))
        if match is None:
            raise ApiError(400, "Failed to parse Content-Range header.")
        if upload.made is None:
            first = int(match["first"] or 0)
            if first > len(upload.data):
                raise ApiError(503, f"{len(upload.data)} bytes were received, the chunk begins at {first}.")
            upload.data += call.body[len(upload.data) - first :]
            if match["size"] == "*" or len(upload.data) < int(match["size"]):
                received = {"Range": f"bytes=0-{len(upload.data) - 1}"} if upload.data else {}
                return web.Response(status=308, headers=received)
            upload.made = self._put(upload.bucket, upload.name, upload.query, bytes(upload.data), upload.fields)
        return web.json_response(upload.made.resource(call.base))

    def cancel(self, call: Call) -> web.Response:
        self._find(call)
        del self._open[call.query["upload_id"]]
        return web.Response(status=499)

    def name(self, call: Call) -> str:
        """Returns the name of the object that a call uploads, for the log; '' if the call does not tell."""
        upload = self._open.get(call.query.get("upload_id", ""))
        if upload is not None:
            return upload.name
        if call.query.get("uploadType") == "multipart":
            return _two_parts(call.headers.get("Content-Type", ""), call.body)[0].get("name", call.name)
        return call.name or json.loads(call.body or b"{}").get("name", "")

    def _find(self, call: Call) -> Upload:
        upload = self._open.get(call.query.get("upload_id", ""))
        if upload is None:
            raise ApiError(404, "No such upload.", "notFound")
        return upload

    def _put(
        self, bucket: str, name: str, query: Mapping[str, str], data: bytes, fields: dict[str, Any]
    ) -> StoredObject:
        if not name:
            raise ApiError(400, "Required parameter: name", "required")
        check_preconditions(query, self._store.bucket(bucket).get(name))
        return self._store.put(bucket, name, data, **fields)


def _fields(content_type: str, info: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of a StoredObject that an upload determines. What its description says comes first."""
    content_type = info.get("contentType") or content_type or "application/octet-stream"
    return {"content_type": content_type, "metadata": info.get("metadata") or {}}


def _two_parts(content_type: str, body: bytes) -> tuple[dict[str, Any], str, bytes]:
    """Returns an object's description, the type of its data and the data.

    Only the first two delimiters and the last one count: gcsfs has a fixed delimiter, which data may contain.
    """
    match = re.search(r'boundary="?([^";]+)"?', content_type)
    delimiter = b"--" + match[1].encode() if match else b""
    if not delimiter or body.count(delimiter) < 3:
        raise ApiError(400, "Malformed multipart body.")
    _, description, rest = body.split(delimiter, 2)
    rest = rest.rpartition(delimiter + b"--")[0]
    newline = b"\r\n" if description.startswith(b"\r\n") else b"\n"
    _, _, info = description.partition(newline * 2)
    headers, _, data = rest.partition(newline * 2)
    kind = re.search(rb"content-type:\s*([^\r\n]+)", headers, re.IGNORECASE)
    return json.loads(info), kind[1].decode() if kind else "", data.removesuffix(newline)
