"""Faults, missing permissions and outages of the storage server."""

import concurrent.futures
import http.client
import threading
import time

import pytest
from google.api_core.exceptions import Forbidden, NotFound


def test_permissions(google, gcs):
    client, bucket = google
    objects = [f"storage.objects.{verb}" for verb in ("create", "get", "list", "delete")]
    asked = [*objects, "storage.buckets.get"]
    gcs.put("bucket", "there", b"1")
    there, fresh = bucket.blob("there"), bucket.blob("fresh")
    calls = {
        "deny_write": lambda: fresh.upload_from_string("x"),
        "deny_read": there.download_as_bytes,
        "deny_list": lambda: list(client.list_blobs(bucket)),
        "deny_delete": there.delete,
        "deny_bucket_get": bucket.reload,
    }
    assert bucket.test_iam_permissions(asked) == asked
    for (fault, call), permission in zip(calls.items(), asked, strict=True):
        gcs.set_faults(**{fault: True})
        with pytest.raises(Forbidden, match=permission):
            call()
        assert bucket.test_iam_permissions(asked) == [name for name in asked if name != permission]
    gcs.set_faults(deny_delete=True)
    with pytest.raises(Forbidden, match="delete"):
        there.upload_from_string("2")  # which replaces an object
    gcs.set_faults(deny_list=True)
    with pytest.raises(Forbidden):
        fresh.download_as_bytes()  # not 404, which would say that it is not there
    gcs.clear_faults()
    with pytest.raises(NotFound):
        client.bucket("nowhere").test_iam_permissions(asked)
    assert gcs.objects("bucket") == {"there": b"1"}


def get(gcs, name: str) -> tuple[int, bytes]:
    """One request, sent once; status 0 stands for a connection that broke."""
    connection = http.client.HTTPConnection(gcs.url.removeprefix("http://"), timeout=10)
    try:
        connection.request("GET", f"/storage/v1/b/bucket/o/{name}?alt=media")
        response = connection.getresponse()
        return response.status, response.read()
    except ConnectionError:
        return 0, b""
    finally:
        connection.close()


def test_each_kind_of_fault(gcs):
    gcs.put("bucket", "fine", b"fine")
    gcs.put("bucket", "broken", b"broken")
    logged = {"429": 429, "500": 500, "503": 503, "reset": 0, "reset_after": 200}
    for kind, status in logged.items():
        gcs.mark()
        gcs.set_faults(rate=1.0, kinds=[kind], match="read br")
        assert get(gcs, "fine") == (200, b"fine")
        assert get(gcs, "broken")[0] == (0 if kind.startswith("reset") else status)
        assert [(r["name"], r["status"], r["fault"]) for r in gcs.requests()] == [
            ("fine", 200, None),
            ("broken", status, kind),
        ]
    for slow in ({"rate": 1.0, "kinds": ["stall"], "stall": 0.3}, {"latency": 0.3}):
        gcs.set_faults(**slow)
        started = time.monotonic()
        assert get(gcs, "broken") == (200, b"broken")
        assert time.monotonic() - started > 0.3
    with pytest.raises(AssertionError, match="no such kinds"):
        gcs.set_faults(kinds=["404"])


def test_faults_are_drawn_by_rate_and_seed(gcs):
    gcs.put("bucket", "name", b"x")
    drawn = []
    for seed in (0, 0, 1):
        gcs.set_faults(rate=0.3, seed=seed)
        drawn.append([get(gcs, "name")[0] for _ in range(100)])
    assert drawn[0] == drawn[1] != drawn[2]
    assert 15 < drawn[0].count(503) < 45


def test_gcsfs_gets_through_faults(gcs, fs):
    gcs.set_faults(rate=1.0, kinds=["503", "429", "reset", "reset_after"])
    names = [str(number) for number in range(8)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        writes = [pool.submit(fs.pipe_file, f"bucket/{name}", name.encode()) for name in names]
        while len(gcs.requests()) < len(names):
            time.sleep(0.01)
        gcs.clear_faults()
        for write in writes:
            write.result()
    assert gcs.objects("bucket") == {name: name.encode() for name in names}
    assert len({record["fault"] for record in gcs.requests()}) > 2


def test_an_outage_keeps_the_objects(gcs, fs):
    fs.pipe_file("bucket/kept", b"kept")  # over a connection that stays open
    gcs.stop()
    with pytest.raises(ConnectionRefusedError):
        http.client.HTTPConnection(gcs.url.removeprefix("http://"), timeout=10).connect()
    gcs.mark()
    threading.Timer(0.5, gcs.start).start()
    assert fs.cat_file("bucket/kept") == b"kept"
    gcs.start()  # which has no effect on a server that runs
    assert get(gcs, "kept") == (200, b"kept")


def test_an_outage_breaks_requests_under_way(gcs):
    gcs.put("bucket", "name", b"x")
    gcs.set_faults(latency=60.0)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(get, gcs, "name")
        while not gcs.requests():
            time.sleep(0.01)
        gcs.stop()
        assert answer.result(timeout=30)[0] == 0
