"""Values reach gpicl as they were given, and none is ever run as code."""

import json
import pathlib

import pytest
import yaml

BINDINGS = [
    "A = 'two  spaces and \"quotes\"'",
    "B = '$(touch pwned)'",
    "C = '`touch pwned`; touch pwned & touch pwned | tee pwned > pwned'",
    "D = 'a line\nand another, \ttab, \x07bell'",
    "E = '\\back\\slash\\n' # $HOME ${HOME} $$ $(POD_NAME) !x * ~",
    "F = 'é ∞ %s %q'",
    "'",
]
GIVEN = [word for binding in BINDINGS for word in ("--gin_bindings", binding)]
ONLY = ["--only", "model=*' $(touch pwned)"]


@pytest.fixture
def nothing_is_run(tmp_path):
    yield
    root = pathlib.Path(__file__).parents[2]
    assert not list(tmp_path.rglob("pwned")) and not list(root.glob("*/pwned")) and not (root / "pwned").exists()


@pytest.fixture
def gin_files(cloud):
    """A file of the user's own that includes another one, in a folder with a bad name."""
    folder = cloud.here / "my $(touch pwned) 'gins'"
    folder.mkdir()
    (folder / "part.gin").write_text("A = '$(touch pwned)'\n")
    (folder / "top.gin").write_text(
        f"include 'gin/base.gin'\ninclude \"{folder.name}/part.gin\"\nB = '`touch pwned`'\n"
    )
    return [f"{folder.name}/top.gin", f"{folder.name}/part.gin"]


def test_on_a_slice(cloud, on_slices, gin_files, nothing_is_run):
    workdir = f"{cloud.folder}/all 'hosts' \"mount\" $(touch pwned)"
    given = [gin_files[0], *on_slices, "--name", "sweep", "--workdir", workdir, *GIVEN, *ONLY]
    result = cloud.run("tpu_sweep.sh", *given)
    assert result.returncode == 0, result.stderr
    [call] = cloud.calls("gpicl")
    assert call["argv"] == ["sweep", "--gin_file", gin_files[0], *GIVEN, "--workdir", workdir, *ONLY, "--shard", "1/1"]
    for name in gin_files:
        assert (pathlib.Path(call["cwd"]) / name).read_text() == (cloud.here / name).read_text()
    assert call["files"][gin_files[0]] == (cloud.here / gin_files[0]).read_text()
    assert "exit_code=0" in (pathlib.Path(workdir) / ".launch/sweep-1.result").read_text()


def test_here(cloud, gin_files, nothing_is_run):
    options = [
        "--engine",
        "local",
        "--workdir",
        "my 'runs' $(touch pwned)",
        "--package",
        "preinstalled",
        "--name",
        "sweep",
    ]
    data = str(cloud.here / pathlib.Path(gin_files[0]).parent)
    options += ["--poll_seconds", "0.05", "--data_dir", data]
    result = cloud.run("tpu_sweep.sh", gin_files[0], *options, *GIVEN, *ONLY)
    assert result.returncode == 0, result.stderr
    workdir = str(cloud.here / "my 'runs' $(touch pwned)")
    [call] = cloud.calls("gpicl")
    assert call["environment"]["TFDS_DATA_DIR"] == data
    assert call["argv"] == ["sweep", "--gin_file", gin_files[0], *GIVEN, "--workdir", workdir, *ONLY, "--shard", "1/1"]


def test_on_gke(cloud, gin_files, nothing_is_run):
    data = "/data \"$(POD_NAME)\" '$HOME'"
    options = ["--engine", "gke", "--image", "gpicl:1", "--accelerator_type", "v6e-8", "--name", "sweep"]
    options += ["--data_dir", data]
    result = cloud.run("tpu_sweep.sh", gin_files[0], *options, "--workdir", "gs://bucket/a 'b' $(x)", *GIVEN, *ONLY)
    assert result.returncode == 0, result.stderr
    manifest = json.loads((cloud.folder / "kubectl/jobset-sweep-1.json").read_text())
    pod = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    arguments = pod["containers"][0]["args"]
    # Kubernetes replaces $(NAME) in arguments, unless the dollar sign is doubled.
    assert all("$" not in argument.replace("$$", "") for argument in arguments)
    assert [argument.replace("$$", "$") for argument in arguments] == [
        *("sweep", "--gin_file", gin_files[0], *GIVEN, "--workdir", "gs://bucket/a 'b' $(x)", *ONLY, "--shard", "1/1")
    ]
    environment = {entry["name"]: entry["value"] for entry in pod["containers"][0]["env"]}
    assert environment["TFDS_DATA_DIR"] == data.replace("$", "$$")
    for container in pod["initContainers"]:
        assert [entry["value"] for entry in container["env"]] == ["gs://bucket/a 'b' $$(x)/.launch/compilation_cache"]
    [files] = [volume["configMap"] for volume in pod["volumes"] if volume["name"] == "files"]
    paths = {item["key"]: item["path"] for item in files["items"]}
    assert sorted(paths.values()) == sorted(gin_files)
    data = json.loads((cloud.folder / "kubectl/configmap-sweep-1-files.json").read_text())["binaryData"]
    for key, path in paths.items():
        assert yaml.safe_load(f"!!binary {data[key]}") == (cloud.here / path).read_bytes()


def test_a_dry_run_can_be_pasted(cloud, on_slices, gin_files, nothing_is_run):
    given = [gin_files[0], *on_slices, *GIVEN, *ONLY, "--num_slices", "2"]
    dry = cloud.run("tpu_sweep.sh", *given, "--dry_run")
    assert dry.returncode == 0, dry.stderr
    assert cloud.calls("gcloud") == cloud.calls("gpicl") == [] and not list((cloud.folder / "home").iterdir())
    commands, _, _ = dry.stdout.partition("# At the end of each shard")
    cloud.put_on_path("paste", f"exec bash {cloud.folder}/pasted")
    (cloud.folder / "pasted").write_text(commands)
    import subprocess

    subprocess.run(["paste"], env=cloud.environment, cwd=cloud.here, check=True, executable=cloud.folder / "bin/paste")
    pasted = [call for call in cloud.calls("gcloud") if "create" in call]
    scripts = [(cloud.folder / f"gcloud/startup-sweep-{i}.0.sh").read_text() for i in (1, 2)]
    (cloud.folder / "gcloud/calls.jsonl").unlink()
    for path in (cloud.folder / "gcloud/resources").iterdir():
        path.unlink()
    assert cloud.run("tpu_sweep.sh", *given).returncode == 0
    assert [call for call in cloud.calls("gcloud") if "create" in call] == pasted and len(pasted) == 2
    assert [(cloud.folder / f"gcloud/startup-sweep-{i}.1.sh").read_text() for i in (1, 2)] == scripts
