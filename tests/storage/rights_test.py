"""Commands name a right that is missing on a bucket before they do anything."""

import pytest

pytestmark = pytest.mark.slow
USER, VIEWER = "roles/storage.objectUser", "roles/storage.legacyBucketReader"


@pytest.mark.parametrize("command", ["train", "sweep"])
@pytest.mark.parametrize(
    ("denied", "words"),
    [
        ("deny_write", ["storage.objects.create", USER]),
        ("deny_read", ["storage.objects.get", USER]),
        ("deny_list", ["storage.objects.list", USER]),
        ("deny_delete", ["storage.objects.delete", USER]),
        ("deny_bucket_get", ["storage.buckets.get", VIEWER]),
    ],
)
def test_a_right_that_is_missing(gcs, start, options, command, denied, words):
    gcs.set_faults(**{denied: True})
    grid = ["--gin_bindings", "sweep.grids = [{'Run.seed': [0, 1]}]"] if command == "sweep" else []
    process = start(command, "--workdir", "gs://bucket/runs", *options, *grid)
    assert process.wait() == 2
    (line,) = process.errors
    assert line.startswith("gpicl: error: gs://bucket: ") and all(word in line for word in words), line
    assert process.output == ""
    left = [name for name in gcs.objects("bucket") if not name.startswith("runs/.rights-")]
    assert not left and (denied == "deny_delete" or not gcs.objects("bucket"))


@pytest.mark.parametrize("command", ["train", "sweep"])
def test_a_bucket_that_does_not_exist(start, options, command):
    grid = ["--gin_bindings", "sweep.grids = [{'Run.seed': [0, 1]}]"] if command == "sweep" else []
    process = start(command, "--workdir", "gs://missing/runs", *options, *grid)
    assert process.wait() == 2
    (line,) = process.errors
    assert line.startswith("gpicl: error: there is no bucket gs://missing"), line
    assert process.output == ""
