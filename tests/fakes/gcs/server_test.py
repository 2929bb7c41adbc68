"""The storage server, as the libraries see it that meet on gs://: gcsfs, TensorStore, google-cloud-storage, Orbax."""

import concurrent.futures

import fsspec.asyn
import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tensorstore
from etils import epath
from google.api_core.exceptions import PreconditionFailed

DATA = np.random.default_rng(0).bytes(300_000)


def kinds(gcs) -> list[tuple[str, str, int]]:
    return [(record["client"], record["kind"], record["status"]) for record in gcs.requests()]


def test_what_is_written_is_read(gcs, fs):
    gcs.mark()
    fs.pipe_file("bucket/a/b", DATA)
    assert kinds(gcs) == [("gcsfs", "upload", 200)]
    assert fs.cat_file("bucket/a/b") == DATA == gcs.objects("bucket")["a/b"]
    assert fs.info("bucket/a/b")["size"] == len(DATA)
    records = gcs.requests()
    assert records[0]["name"] == "a/b" and records[0]["bytes_in"] > len(DATA)
    assert max(record["bytes_out"] for record in records) == len(DATA)
    gcs.mark()
    assert gcs.requests() == []


@pytest.mark.parametrize("data", [b"", b"\n", b"a\r", b"a\r\n", b"--==0==", b"x\n--==0==--\n--==0==\n\nmore\r\n"])
def test_data_that_looks_like_the_end_of_a_part_is_kept(gcs, fs, data):
    fs.pipe_file("bucket/part", data)
    assert gcs.objects("bucket") == {"part": data}


def test_an_upload_in_chunks(gcs, fs):
    data = DATA * 3
    gcs.mark()
    fs.pipe_file("bucket/big", data, chunksize=2**18)
    statuses = [status for _, kind, status in kinds(gcs) if kind == "chunk"]
    assert statuses == [308, 308, 308, 200] and ("gcsfs", "resumable", 200) in kinds(gcs)
    assert {record["name"] for record in gcs.requests()} == {"big"}
    assert gcs.objects("bucket") == {"big": data}


def test_one_of_many_racing_writers_creates_an_object(gcs, fs):
    def create(number: int) -> bool:
        try:
            fs.pipe_file("bucket/lease", str(number).encode(), mode="create")
        except FileExistsError:
            return False
        return True

    gcs.set_faults(latency=0.01)
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        won = list(pool.map(create, range(20)))
    assert sum(won) == 1
    assert gcs.objects("bucket") == {"lease": str(won.index(True)).encode()}


@pytest.mark.slow
def test_listings_come_in_pages(gcs, fs):
    for number in range(1203):
        gcs.put("bucket", f"runs/{number:04d}/run.json", b"x")
    gcs.put("bucket", "runs.txt", b"x")
    gcs.mark()
    assert len(fs.find("bucket/runs")) == 1203
    assert [kind for _, kind, _ in kinds(gcs)].count("list") == 2
    assert len(fs.ls("bucket/runs")) == 1203  # folders
    assert sorted(fs.ls("bucket")) == ["bucket/runs", "bucket/runs.txt"]
    assert fs.ls("bucket/runs/0007") == ["bucket/runs/0007/run.json"]
    assert not fs.exists("bucket/run") and fs.isdir("bucket/runs/0007")


def test_parts_of_listings(google, gcs):
    client, bucket = google
    for name in ("a", "b/1", "b/2", "b/3", "c"):
        gcs.put("bucket", name, b"x")

    def names(**options) -> list[str]:
        return [blob.name for blob in client.list_blobs(bucket, **options)]

    assert names() == ["a", "b/1", "b/2", "b/3", "c"]
    assert names(start_offset="b/2", end_offset="c") == ["b/2", "b/3"]
    assert names(prefix="b/", page_size=2) == ["b/1", "b/2", "b/3"]
    folders = client.list_blobs(bucket, delimiter="/", page_size=2)
    assert [blob.name for blob in folders] == ["a", "c"] and folders.prefixes == {"b/"}


def test_custom_metadata_is_in_listings(gcs, fs):
    fs.pipe_file("bucket/logged", b"x", metadata={"rows": "12"})
    assert fs.ls("bucket", detail=True)[0]["metadata"] == {"rows": "12"}
    generation = fs.info("bucket/logged")["generation"]
    fs.setxattrs("bucket/logged", rows="13")
    assert fs.ls("bucket", detail=True)[0]["metadata"] == {"rows": "13"}
    assert fs.info("bucket/logged")["generation"] == generation


def test_ranges(gcs, fs):
    gcs.put("bucket", "digits", b"0123456789")
    for start, end in ((0, 1), (3, 7), (9, 10), (4, None), (-3, None), (2, 100)):
        assert fs.cat_file("bucket/digits", start, end) == b"0123456789"[start:end]
    gcs.put("bucket", "big", DATA)
    with fs.open("bucket/big", block_size=2**16) as file:
        file.seek(150_000)
        assert file.read(1000) == DATA[150_000:151_000]


def test_copy_move_compose_delete(gcs, fs):
    gcs.put("bucket", "one", b"1")
    gcs.put("bucket", "two", b"2")
    gcs.mark()
    fs.cp_file("bucket/one", "bucket/copy")
    fs.mv_file("bucket/two", "bucket/moved to")
    fs.merge("bucket/both", ["bucket/copy", "bucket/moved to"])
    fs.rm_file("bucket/one")
    assert [kind for _, kind, _ in kinds(gcs)] == ["rewrite", "move", "compose", "delete"]
    assert gcs.objects("bucket") == {"copy": b"1", "moved to": b"2", "both": b"12"}
    with pytest.raises(FileNotFoundError):
        fs.rm_file("bucket/one")


def test_preconditions(google, gcs):
    _, bucket = google
    blob = bucket.blob("value")
    blob.upload_from_string("1")
    first = blob.generation
    blob.upload_from_string("2", if_generation_match=first)
    for attempt in (
        lambda: blob.upload_from_string("3", if_generation_match=first),
        lambda: blob.delete(if_generation_match=first),
        lambda: bucket.copy_blob(blob, bucket, "other", if_source_generation_match=first),
    ):
        with pytest.raises(PreconditionFailed):
            attempt()
    assert gcs.objects("bucket") == {"value": b"2"}


def test_batches_of_deletions(gcs, fs, google):
    client, bucket = google
    names = [f"run/{number} 100%" for number in range(4)]
    for name in names:
        gcs.put("bucket", name, b"x")
    gcs.mark()
    paths = [f"bucket/{name}" for name in (*names[:2], "missing")]
    *removed, missing = fsspec.asyn.sync(fs.loop, fs._rm_files, paths)  # as on Google's own service
    assert removed == paths[:2] and isinstance(missing, OSError)
    with client.batch():
        for name in names[2:]:
            bucket.blob(name).delete()
    assert {("gcsfs", "batch", 200), ("google", "batch", 200)} <= set(kinds(gcs))
    assert "delete" not in [kind for _, kind, _ in kinds(gcs)]
    assert gcs.objects("bucket") == {}


def test_a_clone(gcs):
    gcs.put("bucket", "one/run.json", b"1")
    gcs.put("bucket", "one/eval/1.json", b"2")
    gcs.clone("bucket", "one/", "two/")
    assert gcs.objects("bucket", "two/") == {"two/run.json": b"1", "two/eval/1.json": b"2"}


def test_tensorstore(gcs):
    kvstore = tensorstore.KvStore.open("gs://bucket/store/").result()
    first = kvstore.write("a", b"1").result()
    second = kvstore.write("a", b"2", if_equal=first.generation).result()
    assert second.generation != first.generation
    lost = kvstore.write("a", b"3", if_equal=first.generation).result()
    assert not lost.generation or lost.generation != second.generation
    assert kvstore.read("a").result().value == b"2"
    kvstore.write("b", DATA).result()
    assert kvstore.list().result() == [b"a", b"b"]
    kvstore.delete_range(tensorstore.KvStore.KeyRange("a", "b")).result()
    assert gcs.objects("bucket") == {"store/b": DATA}
    assert {record["client"] for record in gcs.requests()} == {"tensorstore"}


def test_orbax(gcs):
    state = {"weights": jax.random.normal(jax.random.key(0), (64, 32)), "step": np.array(7)}
    folder = epath.Path("gs://bucket/checkpoints")
    with ocp.CheckpointManager(folder, options=ocp.CheckpointManagerOptions(max_to_keep=2)) as manager:
        for step in (1, 2, 3):
            manager.save(step, args=ocp.args.StandardSave(state))
        manager.wait_until_finished()
        assert manager.all_steps() == [2, 3]
        restored = manager.restore(3, args=ocp.args.StandardRestore(state))
    jax.tree.map(np.testing.assert_array_equal, restored, state)
    assert {record["client"] for record in gcs.requests()} == {"gcsfs", "tensorstore", "google"}
    assert not [record for record in gcs.requests() if record["kind"] == "unknown" or record["status"] >= 500]
