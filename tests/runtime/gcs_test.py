"""The file system of gs://: fresh, in few requests, patient for a while."""

import threading
import time

import pytest
from etils import epath

from gpicl_flax.errors import StorageError, UsageError
from gpicl_flax.runtime import gcs as storage
from gpicl_flax.runtime import gcs_file_system

FOLDER = "gs://bucket/folder"


@pytest.fixture(autouse=True)
def impatient(gcs, monkeypatch):
    """Asks a server that does not answer for a second only."""
    monkeypatch.setattr(gcs_file_system, "RETRY_SECONDS", 1.0)
    monkeypatch.setattr(gcs_file_system, "_FIRST_DELAY", 0.02)
    monkeypatch.setattr(gcs_file_system, "_LONGEST_DELAY", 0.1)


def kinds(gcs):
    return [record["kind"] for record in gcs.requests()]


FILES = {
    "write_text": (lambda path: path.write_text("new"), ["upload"]),
    "read_text": (lambda path: path.read_text(), ["read"]),
    "exists": (lambda path: path.exists(), ["list"]),
    "is_dir": (lambda path: path.is_dir(), ["list"]),
    "stat": (lambda path: path.stat(), ["list"]),
    "unlink": (lambda path: path.unlink(), ["delete"]),
    "missing": (lambda path: path.with_name("missing").exists(), ["list"]),
    "mkdir": (lambda path: (path.parent / "new").mkdir(parents=True, exist_ok=True), []),
    "iterdir": (lambda path: list(path.parent.iterdir()), ["list"]),
    "glob": (lambda path: list(path.parent.glob("*.json")), ["list"]),
    "rmtree": (lambda path: path.parent.rmtree(), ["list", "delete", "delete"]),
}


@pytest.mark.parametrize("name", FILES)
def test_a_call_of_epath_makes_as_few_requests_as_it_can(gcs, name):
    for other in ("file.json", "other"):
        gcs.put("bucket", f"folder/{other}", b"{}")
    call, expected = FILES[name]
    gcs.mark()
    call(epath.Path(FOLDER) / "file.json")
    assert kinds(gcs) == expected


def test_each_path_is_what_it_is(gcs):
    for name in ("a/1", "a/10", "a/1-x/inner", "a/1.tmp", "b/c/d"):
        gcs.put("bucket", name, b"text")
    root = epath.Path("gs://bucket")
    expected = {"a/1": False, "a/10": False, "a/1-x": True, "a": True, "b/c": True, "b": True, "": True}
    for name, is_dir in expected.items():
        assert ((root / name).exists(), (root / name).is_dir()) == (True, is_dir), name
    for name in ("a/", "a/100", "b/c/", "c", "a/1-"):
        expected_there = name.rstrip("/") in expected
        assert (root / name).exists() == expected_there, name
    assert storage.names("gs://bucket/a") == ["1", "1-x", "1.tmp", "10"]
    assert storage.names("gs://bucket/none") == []
    assert list(storage.listing("gs://bucket/a")) == ["1", "1-x/inner", "1.tmp", "10"]
    assert list(storage.listing("gs://bucket/a", "1.")) == ["1.tmp"]


def test_what_others_do_is_seen_at_once(gcs):
    path = epath.Path(FOLDER) / "file"
    assert not path.exists() and storage.names(FOLDER) == []
    gcs.put("bucket", "folder/file", b"theirs")
    assert path.exists() and storage.names(FOLDER) == ["file"] and path.read_text() == "theirs"
    gcs.put("bucket", "folder/file", b"new")
    assert path.read_text() == "new" and path.stat().length == 3
    gcs.clear()
    assert not path.exists() and storage.listing(FOLDER) == {}


def test_a_listing_shows_the_contents_of_small_files(gcs):
    small, large = b'{"text": "\xc3\xa9"}\n', b"x" * 10_000
    generations = storage.write({f"{FOLDER}/small": small, f"{FOLDER}/large": large, f"{FOLDER}/empty": b""})
    gcs.put("bucket", "folder/theirs", b"theirs")
    gcs.mark()
    found = storage.listing(FOLDER)
    assert kinds(gcs) == ["list"]
    assert {name: (entry.size, entry.contents) for name, entry in found.items()} == {
        "empty": (0, b""),
        "large": (10_000, None),
        "small": (len(small), small),
        "theirs": (6, None),
    }
    assert all(abs(entry.modified - time.time()) < 600 for entry in found.values())
    assert storage.read([f"{FOLDER}/small", f"{FOLDER}/large"]) == [small, large]
    assert storage.generation_and_size(f"{FOLDER}/large") == (generations[f"{FOLDER}/large"], 10_000)


def test_the_end_of_an_object_is_one_request(gcs):
    storage.write({f"{FOLDER}/log": b"0123456789", f"{FOLDER}/empty": b""})
    gcs.mark()
    assert storage.read([f"{FOLDER}/log"], start=-4) == [b"6789"]
    assert storage.read([f"{FOLDER}/log"], start=-100) == [b"0123456789"]
    assert storage.read([f"{FOLDER}/empty"], start=-100) == [b""]
    assert kinds(gcs) == ["read"] * 3
    with pytest.raises(FileNotFoundError, match="gs://bucket/folder/none"):
        storage.read([f"{FOLDER}/none"], start=-4)


def test_a_refusal_to_read_the_end_is_no_empty_object(gcs):
    """Whatever the name of the object says."""
    gcs.put("bucket", "folder/run_416", b"text")
    gcs.set_faults(rate=1.0, kinds=["503"])
    with pytest.raises(StorageError, match="has not answered"):
        storage.read([f"{FOLDER}/run_416"], start=-4)


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")  # aiohttp's, for each part
def test_a_large_object_has_a_generation_too(gcs):
    data = bytes(51 * 2**20)  # uploaded in parts
    (generation,) = storage.write({f"{FOLDER}/log": data}, show=False).values()
    storage.write({f"{FOLDER}/1": b"end"})
    storage.append(f"{FOLDER}/log", generation, [f"{FOLDER}/1"])
    assert storage.read([f"{FOLDER}/log"], start=-4) == [b"\0end"]
    assert storage.generation_and_size(f"{FOLDER}/log")[1] == len(data) + 3


def test_only_one_of_two_creates_an_object(gcs):
    storage.write({f"{FOLDER}/new": b"first"}, create=True)
    with pytest.raises(FileExistsError):
        storage.write({f"{FOLDER}/new": b"second"}, create=True)
    assert gcs.objects("bucket") == {"folder/new": b"first"}


def test_objects_are_appended_on_the_server(gcs):
    (generation,) = storage.write({f"{FOLDER}/log": b"0"}).values()
    storage.write({f"{FOLDER}/{n}": str(n).encode() for n in (1, 2, 3)})
    gcs.mark()
    new = storage.append(f"{FOLDER}/log", generation, [f"{FOLDER}/1", f"{FOLDER}/2"])
    assert gcs.objects("bucket")["folder/log"] == b"012"
    with pytest.raises(FileExistsError):  # of another generation by now
        storage.append(f"{FOLDER}/log", generation, [f"{FOLDER}/3"])
    storage.append(f"{FOLDER}/log", new, [f"{FOLDER}/3"])
    assert gcs.objects("bucket")["folder/log"] == b"0123" and kinds(gcs) == ["compose"] * 3


def test_a_file_is_uploaded_whole_or_not_at_all(gcs):
    path = epath.Path(FOLDER) / "file"
    with path.open("w") as file:
        file.write("all ")
        assert gcs.objects("bucket") == {}
        file.write("of it")
    assert path.read_text() == "all of it"
    with pytest.raises(RuntimeError), path.open("wb") as file:
        file.write(b"half")
        raise RuntimeError
    assert path.read_text() == "all of it"


@pytest.mark.parametrize("kind", ["503", "429", "500", "reset", "reset_after"])
def test_a_failing_request_is_sent_again(gcs, kind, monkeypatch):
    monkeypatch.setattr(gcs_file_system, "RETRY_SECONDS", 60.0)
    gcs.set_faults(rate=0.5, kinds=[kind], seed=1)
    contents = {f"{FOLDER}/{n:02d}": str(n).encode() for n in range(20)}
    storage.write(contents)
    assert storage.read(contents) == list(contents.values())
    assert storage.names(FOLDER) == [f"{n:02d}" for n in range(20)]
    storage.remove(contents)
    gcs.clear_faults()
    assert gcs.objects("bucket") == {}


def test_a_server_that_does_not_answer_ends_in_one_line_and_then_at_once(gcs):
    storage.write({f"{FOLDER}/file": b"before"})
    gcs.stop()
    words = r"^gs://bucket has not answered for 0 minutes \(.+\): once it does, start the same command again"
    begun = time.monotonic()
    with pytest.raises(StorageError, match=words):
        storage.read([f"{FOLDER}/file"])
    assert time.monotonic() - begun >= 1.0
    for call in (lambda: storage.names(FOLDER), lambda: epath.Path(FOLDER).exists()):
        before = storage.file_system()._away_since
        with pytest.raises(StorageError, match=words):
            call()
        assert storage.file_system()._away_since == before  # one attempt, without a delay of its own
    gcs.start()
    assert storage.read([f"{FOLDER}/file"]) == [b"before"]


def test_a_refusal_is_no_outage(gcs):
    gcs.set_faults(deny_read=True)
    gcs.put("bucket", "folder/file", b"")
    with pytest.raises(
        storage.MissingRight, match=r"gs://bucket/folder/file: the right storage.objects.get is missing"
    ):
        storage.read([f"{FOLDER}/file"])
    assert kinds(gcs) == ["read"]


@pytest.mark.parametrize("call", [storage.names, lambda path: storage.write({f"{path}/file": b""})])
def test_a_bucket_that_is_missing_is_named(call):
    with pytest.raises(UsageError, match="^there is no bucket gs://nowhere: make it first, or name another one$"):
        call("gs://nowhere/folder")
    with pytest.raises(UsageError, match="there is no bucket gs://nowhere"):
        storage.check_rights("gs://nowhere/folder")


RIGHTS = {
    "deny_bucket_get": "storage.buckets.get; ask for roles/storage.legacyBucketReader on",
    "deny_read": "storage.objects.get; ask for roles/storage.objectUser on",
    "deny_write": "storage.objects.create; ask for roles/storage.objectUser on",
    "deny_list": "storage.objects.list; ask for roles/storage.objectUser on",
    "deny_delete": "storage.objects.delete; ask for roles/storage.objectUser on",
}


@pytest.mark.parametrize("fault", RIGHTS)
def test_a_missing_right_is_named_with_its_role(gcs, fault):
    gcs.set_faults(**{fault: True})
    with pytest.raises(UsageError, match=f"^gs://bucket: runs need rights that are missing here: {RIGHTS[fault]}"):
        storage.check_rights(FOLDER)


def test_all_missing_rights_are_named_and_nothing_is_left(gcs):
    gcs.set_faults(deny_bucket_get=True, deny_list=True)
    with pytest.raises(UsageError, match=r"storage.objects.list, storage.buckets.get; ask for .*User and .*Reader on"):
        storage.check_rights(FOLDER)
    gcs.clear_faults()
    gcs.mark()
    storage.check_rights(FOLDER)
    assert len(gcs.requests()) == 5 and gcs.objects("bucket") == {}
    gcs.put("bucket", "folder/.rights-of-a-killed-process", b"")
    storage.check_rights(FOLDER)
    assert gcs.objects("bucket") == {}


def test_calls_for_many_folders_run_side_by_side_only_on_remote_storage():
    together = threading.Barrier(8, timeout=60)
    assert sorted(storage.each(lambda _: together.wait(), range(8), FOLDER)) == list(range(8))
    order = []
    storage.each(order.append, range(8), "/local")
    assert order == list(range(8))
