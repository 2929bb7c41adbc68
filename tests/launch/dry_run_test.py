"""Dry runs are what they were. GPICL_RENEW_GOLDEN=1 writes the files in golden/ anew; look at what has changed."""

import os
import pathlib
import re
import sys

import pytest

import gpicl_flax
from gpicl_flax.launch import startup

ROOT = pathlib.Path(__file__).parents[2]
GOLDEN = pathlib.Path(__file__).parent / "golden"
PLACE = ["--project", "my-project", "--zone", "us-west4-a"]
SPOT = ["--accelerator_type", "v5litepod-16", "--spot", "--workdir", "gs://bucket/state_size"]
SIZES = "gin/state_size.gin"


def normalised(text: str, machine) -> str:
    """Leaves out what depends on the machine and the version, and what hosts always do."""
    text = text.replace(startup.HOST.read_text(), "(gpicl_flax/launch/host.sh)\n")
    text = text.replace(f"gpicl_flax-{gpicl_flax.__version__}-", "gpicl_flax-VERSION-")
    text = re.sub(r'"?\b[0-9a-f]{16}\b"?', "DIGEST", text)  # in YAML some digests are in quotes
    places = {
        sys.executable: "PYTHON",
        machine.home: "HOME",
        machine.here: "HERE",
        machine.folder: "FOLDER",
        ROOT: "CHECKOUT",
    }
    for folder, name in places.items():
        text = text.replace(str(folder), name)
    return text


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        (
            "queued_resources",
            ["sweep", SIZES, *PLACE, *SPOT, "--num_slices", "2", "--only", "LSTM*seed=0", "--data_dir"],
        ),
        ("train", ["train", "gin/quickstart.gin", *PLACE, *SPOT, "--package", "gpicl_flax[tpu]==1.0"]),
        (
            "gke",
            ["sweep", SIZES, *PLACE, *SPOT, "--engine", "gke", "--image", "gcr.io/my-project/gpicl:1"]
            + ["--data_dir", "/data"],
        ),
        (
            "slurm_sweep",
            ["sweep", SIZES, "--engine", "slurm", "--scale", "cpu", "--num_slices", "8", "--partition", "gpu"]
            + ["--gres", "gpu:1", "--time", "8:00:00", "--workdir", "/scratch/state_size", "--account", "me"]
            + ["--qos", "long", "--constraint", "a100|h100", "--cpus_per_task", "8", "--array_limit", "2"]
            + ["--setup", "module load cuda '$(touch x)'", "--gin_bindings", "Run.seed = 3"],
        ),
        (
            "local",
            ["sweep", SIZES, "--engine", "local", "--scale", "cpu", "--num_slices", "2", "--package", "preinstalled"]
            + ["--data_dir"],
        ),
        ("delete", ["delete", "state-size", *PLACE]),
        ("delete_gke", ["delete", "state-size", *PLACE, "--engine", "gke", "--cluster", "pods"]),
        ("delete_slurm", ["delete", "state-size", "--engine", "slurm"]),
    ],
)
def test_a_dry_run_is_as_before_and_makes_nothing(run, machine, prepared, monkeypatch, name, arguments):
    if arguments[-1] == "--data_dir":
        arguments = [*arguments, str(prepared)]
    monkeypatch.setattr("gpicl_flax.launch.local.gpicl", lambda *_: "GPICL")
    result = run(*arguments, "--dry_run")
    assert result.code == 0 and result.err.strip() == "", result.err
    assert machine.calls == [] and not list(machine.home.iterdir()) and not list(machine.here.iterdir())
    text, path = normalised(f"{result.out.strip()}\n", machine), GOLDEN / f"{name}.txt"
    if os.environ.get("GPICL_RENEW_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()
