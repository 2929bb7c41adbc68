"""A storage server in memory: the JSON API of Google Cloud Storage on one port, what tests do with it on another.

`python -m tests.fakes.gcs.server BUCKET ...` prints both addresses and ends when its standard input does. Tests start
it through `tests.fakes.gcs.handle.FakeGcs`. The second port takes POST requests with a JSON object, one for each
method of `Admin`.
"""

import asyncio
import base64
import contextlib
import dataclasses
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from tests.fakes.gcs import calls
from tests.fakes.gcs.api import Api, failure
from tests.fakes.gcs.faults import Faults
from tests.fakes.gcs.store import ApiError, Store

HOST = "127.0.0.1"
MAX_BODY = 1 << 30  # bytes

Handler = Callable[[web.Request], Awaitable[web.Response]]


@dataclasses.dataclass
class Record:
    """One request of the log: when it came, who sent it, what it was about, how it ended.

    `status` is 0 for a connection that a fault broke before anything was done. Bytes are those of the two bodies.
    """

    time: float
    client: str
    kind: str
    name: str
    bytes_in: int
    status: int = 0
    bytes_out: int = 0
    seconds: float = 0.0
    fault: str | None = None


class Storage:
    """The storage service: faults, the log of requests, and the API behind them."""

    def __init__(self, api: Api):
        self.api = api
        self.records: list[Record] = []

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        path = request.raw_path.partition("?")[0]
        base = f"http://{request.host}"
        call = calls.parse(request.method, path, request.query, request.headers, body, base)
        call.permissions = tuple(request.query.getall("permissions", []))
        if call.kind in ("upload", "resumable", "chunk", "cancel"):
            call.name = self.api.uploads.name(call)
        record = Record(time.time(), calls.client(request.headers), call.kind, call.name, len(body))
        self.records.append(record)
        try:
            return await self._answer(request, call, record)
        finally:
            record.seconds = time.time() - record.time

    async def _answer(self, request: web.Request, call: calls.Call, record: Record) -> web.Response:
        faults = self.api.faults
        record.fault = fault = faults.draw(call)
        await asyncio.sleep(faults.latency + (faults.stall if fault == "stall" else 0))
        if fault == "reset":
            return _broken(request)
        try:
            if fault in ("429", "500", "503"):
                raise ApiError(int(fault), "This failure was asked for by a test.", "backendError")
            response = self.api.answer(call)
        except ApiError as error:
            response = failure(error)
        record.status = response.status
        if fault == "reset_after":
            return _broken(request)
        record.bytes_out = len(response.body) if isinstance(response.body, bytes) else 0
        return response


def _broken(request: web.Request) -> web.Response:
    """Breaks the connection; the response goes nowhere."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


class Listener:
    """A port that can be closed, together with its connections and the requests on them, and opened again."""

    def __init__(self, handler: Handler):
        self._handler = handler
        self._runner: web.AppRunner | None = None
        self._port = 0
        self._answering: set[asyncio.Task] = set()

    @property
    def address(self) -> str:
        return f"{HOST}:{self._port}"

    async def open(self) -> None:
        if self._runner is None:
            app = web.Application(client_max_size=MAX_BODY)
            app.router.add_route("*", "/{path:.*}", self._handle)
            self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01)  # 0 would be for ever
            await self._runner.setup()
            await web.TCPSite(self._runner, HOST, self._port, reuse_address=True, backlog=1024).start()
            self._port = self._runner.addresses[0][1]

    async def close(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            for task in self._answering:
                task.cancel()
            await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.Response:
        task = asyncio.current_task()
        assert task is not None
        self._answering.add(task)
        try:
            return await self._handler(request)
        finally:
            self._answering.discard(task)


class Admin:
    """What tests do with the server: each method that does not begin with _ is a request."""

    def __init__(self, storage: Storage, listener: Listener):
        self._storage, self._listener = storage, listener
        self._store = storage.api.store

    async def handle(self, request: web.Request) -> web.Response:
        method = getattr(self, request.match_info["path"])
        try:
            return web.json_response(await method(**json.loads(await request.read())))
        except (TypeError, ValueError) as error:  # a test's mistake
            return web.Response(status=400, text=str(error))

    async def set_faults(self, **fields: Any) -> None:
        self._storage.api.faults = Faults(**fields)

    async def mark(self) -> None:
        self._storage.records.clear()

    async def requests(self) -> list[dict[str, Any]]:
        return [dataclasses.asdict(record) for record in self._storage.records]

    async def put(self, bucket: str, name: str, data: str) -> None:
        self._store.put(bucket, name, base64.b64decode(data))

    async def objects(self, bucket: str, prefix: str) -> dict[str, str]:
        found = self._store.bucket(bucket)
        return {name: base64.b64encode(found.objects[name].data).decode() for name in found.names(prefix)}

    async def clone(self, bucket: str, source: str, target: str) -> None:
        found = self._store.bucket(bucket)
        for name in found.names(source):
            stored = found.objects[name]
            fields = {"content_type": stored.content_type, "metadata": stored.metadata}
            self._store.put(bucket, target + name.removeprefix(source), stored.data, **fields)

    async def clear(self) -> None:
        for name in self._store.buckets:
            self._store.add_bucket(name)

    async def stop(self) -> None:
        await self._listener.close()

    async def start(self) -> None:
        await self._listener.open()


async def serve(buckets: list[str]) -> None:
    """Serves until standard input ends, which it does when the process that started this one is gone."""
    storage = Storage(Api(Store()))
    for name in buckets:
        storage.api.store.add_bucket(name)
    public = Listener(storage.handle)
    private = Listener(Admin(storage, public).handle)
    for listener in (public, private):
        await listener.open()
    print(json.dumps({"public": public.address, "admin": private.address}), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    for listener in (public, private):
        await listener.close()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(sys.argv[1:]))
