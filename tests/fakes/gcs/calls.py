"""What a request asks of the JSON API."""

import dataclasses
import re
from collections.abc import Mapping
from urllib.parse import unquote

_PATH = re.compile(
    r"/(?:(?P<service>upload|download|resumable/upload)/)?storage/v1/b"
    r"(?:/(?P<bucket>[^/]+)(?P<iam>/iam/testPermissions)?(?P<objects>/o(?:/(?P<name>[^/]+)(?:/(?P<verb>.+))?)?)?)?"
)
_COPY = re.compile(r"(?P<verb>rewriteTo|copyTo)/b/(?P<bucket>[^/]+)/o/(?P<name>[^/]+)")
_MOVE = re.compile(r"moveTo/o/(?P<name>[^/]+)")
_OF_BUCKETS = {"GET": "bucket_list", "POST": "bucket_insert"}
_OF_OBJECT = {"GET": "meta", "DELETE": "delete", "PATCH": "patch"}


@dataclasses.dataclass
class Call:
    """A request: its kind, the bucket and object that it is about, and all else that it carries.

    `name` is the prefix for a listing, and '' for an upload that names its object in its body. `target` is the
    (bucket, name) of the object that a copy or move makes.
    """

    kind: str
    method: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    base: str  # the address of the server
    bucket: str = ""
    name: str = ""
    target: tuple[str, str] = ("", "")
    permissions: tuple[str, ...] = ()  # which ones the caller asks about


def client(headers: Mapping[str, str]) -> str:
    """Returns a short name of the library that sent a request."""
    agent = headers.get("User-Agent", "").lower()
    if "google" in headers.get("X-Goog-Api-Client", "") or "gcloud-python" in agent:
        return "google"
    known = (name for name in ("tensorstore", "gcsfs", "gcloud") if name in agent)
    return next(known, agent.partition("/")[0] or "unknown")


def parse(method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes, base: str) -> Call:
    """Returns the call; its kind is 'unknown' if it is none that this server knows. `path` is still encoded."""
    call = Call("unknown", method, query, headers, body, base)
    if path.startswith("/batch"):
        call.kind = "batch"
    elif match := _PATH.fullmatch(path):
        call.bucket, call.name = (unquote(match[part] or "") for part in ("bucket", "name"))
        call.kind = _kind(call, match)
    return call


def _kind(call: Call, match: re.Match[str]) -> str:
    if not match["bucket"]:
        return _OF_BUCKETS.get(call.method, "unknown")
    if match["iam"]:
        return "permissions"
    if not match["objects"]:
        return "bucket_get" if call.method == "GET" else "unknown"
    if match["service"] in ("upload", "resumable/upload"):
        return _upload(call)
    if not match["name"]:
        call.name = call.query.get("prefix", "")
        return "list" if call.method == "GET" else "unknown"
    if match["verb"]:
        return _verb(call, match["verb"]) if call.method == "POST" else "unknown"
    if call.method == "GET" and (match["service"] == "download" or call.query.get("alt") == "media"):
        return "read"
    return _OF_OBJECT.get(call.method, "unknown")


def _upload(call: Call) -> str:
    if call.method == "DELETE":
        return "cancel"
    if "upload_id" in call.query:
        return "chunk"
    call.name = call.query.get("name", "")
    return "resumable" if call.query.get("uploadType") == "resumable" else "upload"


def _verb(call: Call, verb: str) -> str:
    if verb == "compose":
        return "compose"
    if match := _MOVE.fullmatch(verb):
        call.target = call.bucket, unquote(match["name"])
        return "move"
    if match := _COPY.fullmatch(verb):
        call.target = unquote(match["bucket"]), unquote(match["name"])
        return {"rewriteTo": "rewrite", "copyTo": "copy"}[match["verb"]]
    return "unknown"
