"""Dry runs are what they were. GPICL_RENEW_GOLDEN=1 writes the files in golden/ anew; look at what has changed."""

import os
import pathlib
import re

import pytest

import gpicl_flax

ROOT = pathlib.Path(__file__).parents[2]
GOLDEN = pathlib.Path(__file__).parent / "golden"
PLACE = ["--project", "my-project", "--zone", "us-west4-a", "--accelerator_type", "v5litepod-16", "--spot"]
PLACE += ["--workdir", "gs://bucket/state_size"]


def normalised(text: str, cloud) -> str:
    """Leaves out what depends on the machine and the version.

    The parts of start-up scripts that are always the same are left out, too.
    """
    for part in ("storage", "host"):
        text = text.replace((ROOT / f"launch/lib/{part}.sh").read_text(), f"(launch/lib/{part}.sh)\n")
    text = re.sub(rf"({re.escape(str(ROOT))}/\.venv/bin/python|python3)(?= -m pip)", "PYTHON", text)
    text = text.replace(f"gpicl_flax-{gpicl_flax.__version__}-", "gpicl_flax-VERSION-")
    text = re.sub(r"\b[0-9a-f]{16}\b", "DIGEST", text)
    for folder, name in (
        (cloud.folder / "home", "HOME"),
        (cloud.here, "HERE"),
        (cloud.folder, "FOLDER"),
        (ROOT, "CHECKOUT"),
    ):
        text = text.replace(str(folder), name)
    return text


@pytest.mark.parametrize(
    ("name", "script", "arguments"),
    [
        (
            "queued_resources",
            "tpu_sweep.sh",
            ["gin/state_size.gin", *PLACE, "--num_slices", "2", "--only", "LSTM*seed=0"],
        ),
        ("train", "tpu_train.sh", ["gin/quickstart.gin", *PLACE, "--package", "gpicl_flax[tpu]==1.0"]),
        (
            "gke",
            "tpu_sweep.sh",
            ["gin/state_size.gin", *PLACE, "--engine", "gke", "--image", "gcr.io/my-project/gpicl:1"],
        ),
        ("local", "tpu_sweep.sh", ["gin/state_size.gin", "--engine", "local", "--scale", "cpu", "--num_slices", "2"]),
        ("delete", "delete.sh", ["state-size", "--project", "my-project", "--zone", "us-west4-a"]),
    ],
)
def test_a_dry_run_is_as_before_and_makes_nothing(cloud, name, script, arguments):
    if name == "queued_resources" and not (ROOT / ".venv/bin/gpicl").exists():
        pytest.skip("the gin files are checked only where .venv is")
    cloud.pretend_prepared(cloud.folder / "tfds", "mnist", "fashion_mnist")
    more = {
        "queued_resources": ["--data_dir", str(cloud.folder / "tfds")],
        "gke": ["--data_dir", "/data"],
        "local": ["--data_dir", str(cloud.folder / "tfds"), "--package", "preinstalled"],
    }.get(name, [])
    result = cloud.run(script, *arguments, *more, "--dry_run")
    assert result.returncode == 0 and result.stderr == "", result.stderr
    assert cloud.calls("gcloud") == cloud.calls("kubectl") == cloud.calls("gpicl") == []
    home = cloud.folder / "home"
    assert not [path for path in home.rglob("*") if path.is_file()] and not list(cloud.here.iterdir())
    text, path = normalised(result.stdout, cloud), GOLDEN / f"{name}.txt"
    if os.environ.get("GPICL_RENEW_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()
