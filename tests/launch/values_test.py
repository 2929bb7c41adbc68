"""Values reach gpicl as they were given, and none is ever run as code."""

import pathlib
import subprocess

import pytest
import yaml

from tests.launch.fake_system import Here, launcher

ROOT = pathlib.Path(__file__).parents[2]
BINDINGS = [
    "A = 'two  spaces and \"quotes\"'",
    "B = '$(touch pwned)'",
    "C = '`touch pwned`; touch pwned & touch pwned | tee pwned > pwned'",
    "D = 'a line\nand another, \ttab, \x07bell'",
    "E = '\\back\\slash\\n' # $HOME ${HOME} $$ $(POD_NAME) !x * ~",
    "F = 'é ∞ %s %q'",
    "G = '\nEND_OF_FILE\nSHARD=7\n'",
    "'",
]
GIVEN = [word for binding in BINDINGS for word in ("--gin_bindings", binding)]
ONLY = ["--only", "model=*' $(touch pwned)"]


@pytest.fixture(autouse=True)
def nothing_is_run(tmp_path):
    yield
    assert not list(tmp_path.rglob("pwned")) and not list(ROOT.glob("*/pwned")) and not (ROOT / "pwned").exists()


@pytest.fixture
def gin_files(cloud, monkeypatch):
    """A file of the user's own that includes another one, in a folder with a bad name."""
    monkeypatch.chdir(cloud.here)
    folder = cloud.here / "my $(touch pwned) 'gins'"
    folder.mkdir()
    (folder / "part.gin").write_text("A = '$(touch pwned)'\n")
    (folder / "top.gin").write_text(
        f"include 'gin/base.gin'\ninclude \"{folder.name}/part.gin\"\nB = '`touch pwned`'\n"
    )
    return [f"{folder.name}/top.gin", f"{folder.name}/part.gin"]


@pytest.fixture
def machine(cloud, machine):  # the cloud's folders come first
    return machine


def test_on_a_slice(cloud, on_slices, gin_files):
    workdir = f"{cloud.folder}/all 'hosts' \"mount\" $(touch pwned)"
    script = cloud.startup_script(gin_files[0], *on_slices, "--workdir", workdir, *GIVEN, *ONLY)
    assert cloud.boot(script).wait(600) == 0
    [call] = cloud.calls("gpicl")
    assert call["argv"] == ["sweep", "--gin_file", gin_files[0], *GIVEN, "--workdir", workdir, *ONLY, "--shard", "1/1"]
    for name in gin_files:
        assert (pathlib.Path(call["cwd"]) / name).read_text() == (cloud.here / name).read_text()
    assert call["files"][gin_files[0]] == (cloud.here / gin_files[0]).read_text()
    assert "exit_code=0" in (pathlib.Path(workdir) / ".launch/sweep-1.result").read_text()


def test_here(cloud, gin_files, monkeypatch, capsys):
    here = Here(cloud.folder)
    here.environment = cloud.environment
    workdir, data = "my 'runs' $(touch pwned)", str(cloud.here / pathlib.Path(gin_files[0]).parent)
    options = ["--engine", "local", "--workdir", workdir, "--package", "preinstalled", "--name", "sweep"]
    options += ["--poll_seconds", "0.05", "--data_dir", data]
    result = launcher(here, monkeypatch, capsys)("sweep", gin_files[0], *options, *GIVEN, *ONLY)
    assert result.code == 0, result.err
    workdir = str(cloud.here / workdir)
    [call] = cloud.calls("gpicl")
    assert call["environment"]["TFDS_DATA_DIR"] == data
    assert call["argv"] == ["sweep", "--gin_file", gin_files[0], *GIVEN, "--workdir", workdir, *ONLY, "--shard", "1/1"]


def test_a_dry_run_of_workers_here_can_be_pasted(cloud, gin_files, machine, run):
    options = ["--engine", "local", "--workdir", "my 'runs'", "--package", "preinstalled", "--name", "sweep"]
    machine.path_of = lambda program: str(cloud.folder / "bin" / program)
    result = run("sweep", gin_files[0], *options, *GIVEN, *ONLY, "--dry_run")
    assert result.code == 0 and not (cloud.here / "my 'runs'").exists()
    subprocess.run(
        ["bash"], input=f"{result.out}\nwait\n", text=True, env=cloud.environment, cwd=cloud.here, check=True
    )
    [call] = cloud.calls("gpicl")
    workdir = str(cloud.here / "my 'runs'")
    assert call["argv"] == ["sweep", "--gin_file", gin_files[0], *GIVEN, "--workdir", workdir, *ONLY, "--shard", "1/1"]
    assert "start 0" in (pathlib.Path(workdir) / ".launch/sweep-1.log").read_text()


def test_on_gke(machine, run, gin_files):
    data = "/data \"$(POD_NAME)\" '$HOME'"
    options = ["--engine", "gke", "--image", "gpicl:1", "--accelerator_type", "v6e-8", "--name", "sweep"]
    options += ["--data_dir", data]
    result = run("sweep", gin_files[0], *options, "--workdir", "gs://bucket/a 'b' $(x)", *GIVEN, *ONLY)
    assert result.code == 0, result.err
    manifest = machine.kubectl.applied("jobset", "sweep-1")
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
    data = machine.kubectl.applied("configmap", "sweep-1-files")["binaryData"]
    for key, path in paths.items():
        assert yaml.safe_load(f"!!binary {data[key]}") == (machine.here / path).read_bytes()


def test_placeholders_of_a_template_are_no_values(machine, run):
    """A value that looks like the name of another one stays what it is."""
    options = ["--engine", "gke", "--image", "gpicl:1", "--accelerator_type", "v6e-8", "--workdir", "gs://b/x"]
    assert run("sweep", "gin/sgd.gin", *options, "--gin_bindings", "<name>", "--name", "sweep").code == 0
    manifest = machine.kubectl.applied("jobset", "sweep-1")
    pod = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    assert "<name>" in pod["containers"][0]["args"]


def test_a_dry_run_can_be_pasted(cloud, machine, run, on_slices, gin_files):
    given = [gin_files[0], *on_slices, *GIVEN, *ONLY, "--num_slices", "2"]
    dry = run("sweep", *given, "--dry_run")
    assert dry.code == 0, dry.err
    assert machine.calls == [] and not list(machine.home.iterdir())
    commands, _, _ = dry.out.partition("# At the end of each shard")
    subprocess.run(["bash"], input=commands, text=True, env=cloud.environment, cwd=cloud.here, check=True)
    pasted = [call for call in cloud.calls("gcloud") if "create" in call]
    scripts = [(cloud.folder / f"gcloud/startup-sweep-{i}.0.sh").read_text() for i in (1, 2)]
    assert run("sweep", *given).code == 0
    assert [call for call in machine.gcloud.calls if "create" in call] == pasted and len(pasted) == 2
    assert [machine.gcloud.scripts[f"sweep-{i}"][0] for i in (1, 2)] == scripts
