"""Buckets and objects in memory, with the generations, preconditions and listings of Google Cloud Storage."""

import base64
import bisect
import dataclasses
import datetime
import functools
import hashlib
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import google_crc32c

MAX_RESULTS = 1000


class ApiError(Exception):
    """An answer that is not a success: its status, and what the service says."""

    def __init__(self, status: int, message: str = "", reason: str = "invalid"):
        super().__init__(message)
        self.status, self.message, self.reason = status, message, reason


@dataclasses.dataclass(frozen=True)
class StoredObject:
    """One generation of an object."""

    bucket: str
    name: str
    data: bytes
    generation: int
    content_type: str = "application/octet-stream"
    metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)
    metageneration: int = 1
    created: datetime.datetime = dataclasses.field(default_factory=lambda: datetime.datetime.now(datetime.UTC))

    @functools.cached_property
    def md5(self) -> str:
        return base64.b64encode(hashlib.md5(self.data).digest()).decode()

    @functools.cached_property
    def crc32c(self) -> str:
        return base64.b64encode(google_crc32c.value(self.data).to_bytes(4, "big")).decode()

    def resource(self, base: str) -> dict[str, Any]:
        """Returns what the JSON API says about the object; `base` is the address of the server."""
        path = f"storage/v1/b/{self.bucket}/o/{quote(self.name, safe='')}"
        time_created = self.created.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return {
            "kind": "storage#object",
            "id": f"{self.bucket}/{self.name}/{self.generation}",
            "bucket": self.bucket,
            "name": self.name,
            "generation": str(self.generation),
            "metageneration": str(self.metageneration),
            "contentType": self.content_type,
            "size": str(len(self.data)),
            "md5Hash": self.md5,
            "crc32c": self.crc32c,
            "etag": f"E{self.generation}/{self.metageneration}",
            "timeCreated": time_created,
            "updated": time_created,
            "storageClass": "STANDARD",
            "selfLink": f"{base}/{path}",
            "mediaLink": f"{base}/download/{path}?alt=media&generation={self.generation}",
            **({"metadata": dict(self.metadata)} if self.metadata else {}),
        }


def check_preconditions(query: Mapping[str, str], stored: StoredObject | None, prefix: str = "if") -> None:
    """Raises ApiError unless the object, or its absence, is what a request demands.

    `prefix` is "ifSource" for the conditions on the source of a copy.
    """
    have = {"Generation": stored.generation if stored else 0, "Metageneration": stored.metageneration if stored else 0}
    for what, number in have.items():
        if int(query.get(f"{prefix}{what}Match", number)) != number:
            raise ApiError(412, "At least one of the pre-conditions you specified did not hold.", "conditionNotMet")
        if int(query.get(f"{prefix}{what}NotMatch", -1)) == number:
            raise ApiError(304)


@dataclasses.dataclass
class Page:
    """One page of a listing. `token` asks for the next one, if there is one."""

    objects: list[StoredObject] = dataclasses.field(default_factory=list)
    prefixes: list[str] = dataclasses.field(default_factory=list)
    token: str | None = None


class Bucket:
    """The live objects of a bucket. Names are sorted, as listings are."""

    def __init__(self, name: str):
        self.name = name
        self.objects: dict[str, StoredObject] = {}
        self._names: list[str] = []

    def get(self, name: str, generation: str | None = None) -> StoredObject | None:
        stored = self.objects.get(name)
        return stored if stored is None or generation in (None, str(stored.generation)) else None

    def put(self, stored: StoredObject) -> StoredObject:
        if stored.name not in self.objects:
            bisect.insort(self._names, stored.name)
        self.objects[stored.name] = stored
        return stored

    def remove(self, name: str) -> None:
        del self.objects[name]
        self._names.pop(bisect.bisect_left(self._names, name))

    def names(self, prefix: str = "", start: str = "", end: str = "") -> list[str]:
        """Returns the sorted names that begin with `prefix`, at or after `start`, and before `end` if it is not ''."""
        first = bisect.bisect_left(self._names, max(prefix, start))
        last = bisect.bisect_left(self._names, prefix + chr(0x10FFFF)) if prefix else len(self._names)
        return self._names[first : min(last, bisect.bisect_left(self._names, end)) if end else last]

    def page(self, query: Mapping[str, str]) -> Page:
        """Returns the page that a listing's parameters ask for. A token encodes the name that the page begins with."""
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        limit = min(int(query.get("maxResults", MAX_RESULTS)), MAX_RESULTS)
        token = base64.urlsafe_b64decode(query.get("pageToken", "")).decode()
        page, last_prefix = Page(), None
        for name in self.names(prefix, max(query.get("startOffset", ""), token), query.get("endOffset", "")):
            head, found, _ = name[len(prefix) :].partition(delimiter) if delimiter else (name, "", "")
            folder = prefix + head + delimiter if found else None
            if folder is None or folder != last_prefix:
                if len(page.objects) + len(page.prefixes) >= limit:
                    page.token = base64.urlsafe_b64encode(name.encode()).decode()
                    break
                if folder is None:
                    page.objects.append(self.objects[name])
                else:
                    page.prefixes.append(folder)
                    last_prefix = folder
            if name == folder and query.get("includeTrailingDelimiter") == "true":
                page.objects.append(self.objects[name])
        return page


class Store:
    """All buckets. Generations grow over all objects, as a clock's microseconds do."""

    def __init__(self):
        self.buckets: dict[str, Bucket] = {}
        self._generation = int(time.time() * 1e6)

    def bucket(self, name: str) -> Bucket:
        if name not in self.buckets:
            raise ApiError(404, "The specified bucket does not exist.", "notFound")
        return self.buckets[name]

    def add_bucket(self, name: str) -> None:
        self.buckets[name] = Bucket(name)

    def change(self, stored: StoredObject, **fields: Any) -> StoredObject:
        """Changes an object's metadata, in the same generation."""
        changed = dataclasses.replace(stored, metageneration=stored.metageneration + 1, **fields)
        return self.bucket(stored.bucket).put(changed)

    def put(self, bucket: str, name: str, data: bytes, **fields: Any) -> StoredObject:
        """Makes a new generation of an object; `fields` are those of StoredObject that have a default."""
        self._generation += 1
        return self.bucket(bucket).put(StoredObject(bucket, name, bytes(data), self._generation, **fields))
