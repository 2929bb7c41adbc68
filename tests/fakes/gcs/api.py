"""What the JSON API of Google Cloud Storage answers, call by call, from a store."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import web

from tests.fakes.gcs import batches
from tests.fakes.gcs.calls import Call
from tests.fakes.gcs.faults import Faults
from tests.fakes.gcs.store import ApiError, Store, StoredObject, check_preconditions
from tests.fakes.gcs.uploads import Uploads

MAX_COMPONENTS = 32  # of one compose
_HTTP_DATE = "%a, %d %b %Y %H:%M:%S GMT"


class Api:
    """Answers calls. An answer that is not a success is an ApiError."""

    def __init__(self, store: Store):
        self.store = store
        self.uploads = Uploads(store)
        self.faults = Faults()
        self._moved: dict[str, StoredObject] = {}  # by the token that says that a request is sent again
        self._answers: dict[str, Callable[[Call], web.Response]] = {
            "bucket_list": self._list_buckets,
            "bucket_insert": self._insert_bucket,
            "bucket_get": self._get_bucket,
            "permissions": self._test_permissions,
            "list": self._list,
            "meta": self._meta,
            "read": self._read,
            "upload": lambda call: self._resource(call, self.uploads.at_once(call)),
            "resumable": self.uploads.begin,
            "chunk": self.uploads.chunk,
            "cancel": self.uploads.cancel,
            "patch": self._patch,
            "delete": self._delete,
            "copy": lambda call: self._resource(call, self._copied(call)),
            "rewrite": self._rewrite,
            "move": self._move,
            "compose": self._compose,
            "batch": self._batch,
        }

    def answer(self, call: Call) -> web.Response:
        if call.kind not in self._answers:
            raise ApiError(501, f"The fake does not know this request: {call.method} {call.kind} {call.name}")
        self.faults.check_permissions(call, self._replaces(call))
        return self._answers[call.kind](call)

    def _replaces(self, call: Call) -> bool:
        """Whether a call replaces an object. One that only creates never does."""
        bucket, name = call.target if call.target[0] else (call.bucket, call.name)
        known = self.store.buckets.get(bucket)
        return known is not None and name in known.objects and call.query.get("ifGenerationMatch") != "0"

    def _found(self, bucket: str, name: str, generation: str | None = None) -> StoredObject:
        stored = self.store.bucket(bucket).get(name, generation)
        if stored is None:
            if "storage.objects.list" in self.faults.denied:
                raise ApiError(403, "Permission 'storage.objects.list' denied (or it may not exist).", "forbidden")
            raise ApiError(404, f"No such object: {bucket}/{name}", "notFound")
        return stored

    @staticmethod
    def _resource(call: Call, stored: StoredObject) -> web.Response:
        return web.json_response(stored.resource(call.base))

    def _list_buckets(self, call: Call) -> web.Response:
        return web.json_response({"kind": "storage#buckets", "items": [_bucket(name) for name in self.store.buckets]})

    def _insert_bucket(self, call: Call) -> web.Response:
        name = json.loads(call.body)["name"]
        if name in self.store.buckets:
            raise ApiError(409, "Your previous request to create the named bucket succeeded.", "conflict")
        self.store.add_bucket(name)
        return web.json_response(_bucket(name))

    def _get_bucket(self, call: Call) -> web.Response:
        return web.json_response(_bucket(self.store.bucket(call.bucket).name))

    def _test_permissions(self, call: Call) -> web.Response:
        self.store.bucket(call.bucket)
        granted = [name for name in call.permissions if name not in self.faults.denied]
        kind = {"kind": "storage#testIamPermissionsResponse"}
        return web.json_response(kind | ({"permissions": granted} if granted else {}))

    def _list(self, call: Call) -> web.Response:
        page = self.store.bucket(call.bucket).page(call.query)
        answer: dict[str, Any] = {"kind": "storage#objects"}
        if page.objects:
            answer["items"] = [stored.resource(call.base) for stored in page.objects]
        if page.prefixes:
            answer["prefixes"] = page.prefixes
        if page.token:
            answer["nextPageToken"] = page.token
        return web.json_response(answer)

    def _meta(self, call: Call) -> web.Response:
        stored = self._found(call.bucket, call.name, call.query.get("generation"))
        check_preconditions(call.query, stored)
        return self._resource(call, stored)

    def _read(self, call: Call) -> web.Response:
        stored = self.store.bucket(call.bucket).get(call.name, call.query.get("generation"))
        check_preconditions(call.query, stored)  # before 404: TensorStore expects 412 of an object that is gone
        stored = stored or self._found(call.bucket, call.name, call.query.get("generation"))
        headers = {
            "x-goog-generation": str(stored.generation),
            "x-goog-metageneration": str(stored.metageneration),
            "x-goog-stored-content-length": str(len(stored.data)),
            "x-goog-storage-class": "STANDARD",
            "x-goog-hash": f"crc32c={stored.crc32c}",
            "Content-Type": stored.content_type,
            "ETag": f"E{stored.generation}",
            "Last-Modified": stored.created.strftime(_HTTP_DATE),
        }
        if "Range" not in call.headers:
            return web.Response(body=stored.data, headers=headers)
        first, end = _range(call.headers["Range"], len(stored.data))
        headers["Content-Range"] = f"bytes {first}-{end - 1}/{len(stored.data)}"
        return web.Response(status=206, body=stored.data[first:end], headers=headers)

    def _patch(self, call: Call) -> web.Response:
        """Changes metadata; a value of null removes a key, and no metadata at all removes all of them."""
        stored = self._found(call.bucket, call.name)
        check_preconditions(call.query, stored)
        changes, metadata = json.loads(call.body), dict(stored.metadata)
        if "metadata" in changes:
            merged = metadata | changes["metadata"] if changes["metadata"] else {}
            metadata = {key: value for key, value in merged.items() if value is not None}
        content_type = changes.get("contentType", stored.content_type)
        return self._resource(call, self.store.change(stored, metadata=metadata, content_type=content_type))

    def _delete(self, call: Call) -> web.Response:
        check_preconditions(call.query, self._found(call.bucket, call.name, call.query.get("generation")))
        self.store.bucket(call.bucket).remove(call.name)
        return web.Response(status=204)

    def _copied(self, call: Call) -> StoredObject:
        source = self._found(call.bucket, call.name, call.query.get("sourceGeneration"))
        check_preconditions(call.query, source, "ifSource")
        bucket, name = call.target
        check_preconditions(call.query, self.store.bucket(bucket).get(name))
        changes: Mapping[str, Any] = json.loads(call.body or b"{}")
        metadata = changes.get("metadata", source.metadata)
        content_type = changes.get("contentType", source.content_type)
        return self.store.put(bucket, name, source.data, content_type=content_type, metadata=metadata)

    def _rewrite(self, call: Call) -> web.Response:
        made = self._copied(call)
        size = str(len(made.data))
        answer = {"kind": "storage#rewriteResponse", "done": True, "objectSize": size, "totalBytesRewritten": size}
        return web.json_response(answer | {"resource": made.resource(call.base)})

    def _move(self, call: Call) -> web.Response:
        """Moves at most once for each token that says that a request may be another try."""
        token = call.headers.get("X-Goog-GCS-Idempotency-Token", "")
        if token not in self._moved:
            made = self._copied(call)
            if call.name != made.name:
                self.store.bucket(call.bucket).remove(call.name)
            if not token:
                return self._resource(call, made)
            self._moved[token] = made
        return self._resource(call, self._moved[token])

    def _compose(self, call: Call) -> web.Response:
        request = json.loads(call.body)
        check_preconditions(call.query, self.store.bucket(call.bucket).get(call.name))
        if len(request["sourceObjects"]) > MAX_COMPONENTS:
            raise ApiError(400, f"The number of source components exceeds the maximum ({MAX_COMPONENTS}).")
        parts = []
        for source in request["sourceObjects"]:
            parts.append(self._found(call.bucket, source["name"], source.get("generation")))
            check_preconditions(source.get("objectPreconditions", {}), parts[-1])
        wanted = request.get("destination") or {}
        content_type = wanted.get("contentType") or "application/octet-stream"
        metadata, data = wanted.get("metadata") or {}, b"".join(part.data for part in parts)
        made = self.store.put(call.bucket, call.name, data, content_type=content_type, metadata=metadata)
        return self._resource(call, made)

    def _batch(self, call: Call) -> web.Response:
        answers = []
        for part in batches.parts(call):
            try:
                answers.append(self.answer(part))
            except ApiError as error:
                answers.append(failure(error))
        return batches.joined(answers)


def failure(error: ApiError) -> web.Response:
    """Returns the response that says what went wrong."""
    if error.status == 304:
        return web.Response(status=304)
    details = {"message": error.message, "domain": "global", "reason": error.reason}
    content = {"error": {"code": error.status, "message": error.message, "errors": [details]}}
    return web.json_response(content, status=error.status)


def _bucket(name: str) -> dict[str, str]:
    return {"kind": "storage#bucket", "id": name, "name": name, "location": "US", "storageClass": "STANDARD"}


def _range(header: str, size: int) -> tuple[int, int]:
    """Returns the first byte of a range, and the one behind its last."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", header)
    if match is None:
        return 0, size  # HTTP ignores what is no range
    first, last = match.groups()
    start, end = (int(first), min(int(last or size) + 1, size)) if first else (max(0, size - int(last or 0)), size)
    if start >= end:
        raise ApiError(416, "The requested range cannot be satisfied.", "requestedRangeNotSatisfiable")
    return start, end
