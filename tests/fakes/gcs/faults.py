"""Faults that a test can switch on: slow, failing, lost and stalled requests, and missing permissions."""

import dataclasses
import random
import re

from tests.fakes.gcs.calls import Call
from tests.fakes.gcs.store import ApiError

KINDS = ("429", "500", "503", "reset", "reset_after", "stall")


@dataclasses.dataclass
class Faults:
    """What goes wrong.

    Attributes:
        latency: Seconds that every request takes.
        rate: The share of requests that fail.
        kinds: How they fail, drawn evenly. '429', '500', '503': with this status, and nothing is done. 'reset': the
            connection breaks, and nothing is done. 'reset_after': it breaks once the request is done, so that the
            client cannot know. 'stall': the answer takes `stall` seconds.
        stall: See above.
        match: A regular expression. Only requests fail in whose "KIND NAME" it occurs, such as "upload .*/metrics".
        seed: Determines which requests fail, by the order in which they come.
        deny_write: No storage.objects.create, which the deletion in a move needs as well.
        deny_read: No storage.objects.get.
        deny_list: No storage.objects.list. Then a missing object is forbidden, too, since 404 would say that it is.
        deny_delete: No storage.objects.delete, which replacing an object needs as well.
        deny_bucket_get: No storage.buckets.get.
    """

    latency: float = 0.0
    rate: float = 0.0
    kinds: tuple[str, ...] = ("503",)
    stall: float = 30.0
    match: str = ""
    seed: int = 0
    deny_write: bool = False
    deny_read: bool = False
    deny_list: bool = False
    deny_delete: bool = False
    deny_bucket_get: bool = False

    def __post_init__(self):
        unknown = set(self.kinds) - set(KINDS)
        if unknown:
            raise ValueError(f"no such kinds of faults: {sorted(unknown)}; there are {KINDS}")
        self._pattern, self._random = re.compile(self.match), random.Random(self.seed)

    def draw(self, call: Call) -> str | None:
        """Returns how a call fails, or None if it does not."""
        if not self.rate or not self._pattern.search(f"{call.kind} {call.name}"):
            return None
        return self._random.choice(self.kinds) if self._random.random() < self.rate else None

    @property
    def denied(self) -> set[str]:
        """The permissions that are missing."""
        permissions = {
            "storage.objects.create": self.deny_write,
            "storage.objects.update": self.deny_write,
            "storage.objects.get": self.deny_read,
            "storage.objects.list": self.deny_list,
            "storage.objects.delete": self.deny_delete,
            "storage.objects.move": self.deny_delete,
            "storage.buckets.get": self.deny_bucket_get,
        }
        return {name for name, missing in permissions.items() if missing}

    def check_permissions(self, call: Call, replaces: bool) -> None:
        """Raises ApiError if a call needs a permission that is missing; `replaces`: it replaces an object."""
        for permission in sorted(_needed(call, replaces) & self.denied):
            what = "bucket" if permission.startswith("storage.buckets") else "object"
            message = f"tester@example.com does not have {permission} access to the Google Cloud Storage {what}."
            raise ApiError(
                403, f"{message} Permission '{permission}' denied on resource (or it may not exist).", "forbidden"
            )


def _needed(call: Call, replaces: bool) -> set[str]:
    """Returns the permissions that a call needs, by the documentation of the JSON API."""
    needed = {
        "bucket_get": {"storage.buckets.get"},
        "list": {"storage.objects.list"},
        "read": {"storage.objects.get"},
        "meta": {"storage.objects.get"},
        "delete": {"storage.objects.delete"},
        "patch": {"storage.objects.get", "storage.objects.update"},
        "move": {"storage.objects.create", "storage.objects.move"},
        "upload": {"storage.objects.create"},
        "resumable": {"storage.objects.create"},
        "chunk": {"storage.objects.create"},
        **dict.fromkeys(("rewrite", "copy", "compose"), {"storage.objects.create", "storage.objects.get"}),
    }.get(call.kind, set())
    return needed | {"storage.objects.delete"} if replaces and "storage.objects.create" in needed else needed
