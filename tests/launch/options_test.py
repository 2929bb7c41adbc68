"""Options: mistakes are said in one line, with exit code 2, before anything is made."""

import dataclasses
import subprocess
import sys

import pytest

from gpicl_flax.errors import UsageError
from gpicl_flax.launch import options
from gpicl_flax.launch.options import ENGINES, Options

PLACE = ["--project", "my-project", "--zone", "us-west4-a", "--accelerator_type", "v5litepod-16"]
SLICES = ["gin/sgd.gin", *PLACE, "--workdir", "gs://bucket/study", "--package", "preinstalled"]
ON_GKE = ["gin/sgd.gin", *PLACE, "--workdir", "gs://bucket/study", "--engine", "gke"]
HERE = ["gin/sgd.gin", "--engine", "local"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["a gin file is needed"]),
        (["gin/none.gin", "--engine", "local"], ["no gin file 'gin/none.gin'"]),
        ([*SLICES, "--zoen", "x"], ["unknown option --zoen"]),
        ([*SLICES, "--zon", "x"], ["unknown option --zon"]),  # no option can be shortened
        ([*SLICES, "--zone"], ["--zone", "expected one argument"]),
        ([*SLICES, "--zone="], ["--zone needs a value"]),
        ([*SLICES, "--spot=yes"], ["--spot", "'yes'"]),
        ([*SLICES, "--zone", "us west"], ["--zone", "us west"]),
        ([*SLICES, "--project", "-p"], ["--project", "expected one argument"]),
        ([*SLICES, "--engine", "pbs"], ["--engine must be queued-resources, gke, slurm or local"]),
        (["gin/sgd.gin", *PLACE], ["--workdir is needed", "GPICL_WORKDIR"]),
        (["gin/sgd.gin", *PLACE, "--workdir", "runs"], ["--workdir must be gs://BUCKET/FOLDER"]),
        ([*SLICES, "--workdir", "gs://bucket/*"], ["--workdir must be gs://BUCKET/FOLDER"]),
        ([*SLICES, "--workdir", "gs://bucket"], ["--workdir must be gs://BUCKET/FOLDER"]),
        ([*SLICES, "--workdir", "/a\nb"], ["--workdir must be one line"]),
        ([*HERE, "--workdir", "gs://bucket/study"], ["--workdir must be a folder of this machine"]),
        (["gin/sgd.gin", "--engine", "slurm"], ["--workdir is needed with --engine slurm"]),
        (["gin/sgd.gin", "--engine", "slurm", "--workdir", "gs://b/x"], ["--workdir must be a folder that all nodes"]),
        (["gin/sgd.gin", "--workdir", "gs://b/x"], ["--project is needed", "GPICL_PROJECT"]),
        ([*SLICES, "--accelerator_type", "v5e-16"], ["unknown accelerator type 'v5e-16'", "v5litepod-"]),
        ([*SLICES, "--accelerator_type", "tpu7x-16"], ["unknown accelerator type 'tpu7x-16'"]),
        ([*SLICES, "--accelerator_type", "v5litepod"], ["--accelerator_type must be like v5litepod-16"]),
        ([*SLICES, "--accelerator_type", "v4-12"], ["there is no v4-12", "cores"]),
        ([*SLICES, "--accelerator_type", "v5p-9"], ["there is no v5p-9", "cores"]),
        ([*SLICES, "--accelerator_type", "v6e-2"], ["there is no v6e-2", "chips: 1, 4, 8"]),
        ([*SLICES, "--num_slices", "0"], ["--num_slices must be a positive integer"]),
        ([*SLICES, "--num_slices", "$(touch pwned)"], ["--num_slices must be a positive integer"]),
        ([*SLICES, "--max_restarts", "-1"], ["--max_restarts must be an integer"]),
        ([*SLICES, "--poll_seconds", "soon"], ["--poll_seconds must be a number of seconds"]),
        ([*SLICES, "--name", "State_Size"], ["--name must be 1 to 40 of a-z"]),
        ([*SLICES, "--network", "a b"], ["--network must be a name"]),
        ([*SLICES, "--scale", "tiny"], ["--scale tiny", "cpu, gpu, laptop"]),
        ([*SLICES, "--scale", "../x"], ["--scale must be a name"]),
        ([*SLICES, "--stack", "many"], ["--stack must be auto, off or a positive integer"]),
        ([*SLICES, "--package", "--upgrade"], ["--package", "expected one argument"]),
        ([*SLICES, "--package=--upgrade"], ["--package must be one pip requirement"]),
        ([*SLICES, "--prepare_on_hosts"], ["--prepare_on_hosts is for the package of this checkout"]),
        (ON_GKE, ["--image is needed"]),
        ([*ON_GKE, "--image", "i", "--cluster", "c", "--zone="], ["--zone needs a value"]),
        ([*ON_GKE, "--image", "i", "--service_account", "a@b.c"], ["--service_account must be one of Kubernetes"]),
        ([*SLICES, "--data_dir", "none"], ["--data_dir: there is no folder 'none'"]),
        ([*SLICES, "--data_dir", "/"], ["--data_dir is for the package of this checkout", "TaskDistribution.data_dir"]),
        ([*ON_GKE, "--image", "i", "--data_dir", "data"], ["--data_dir must be an absolute path in the container"]),
        ([*HERE, "--package", "gpicl_flax==1"], ["--package 'gpicl_flax==1' is for slices"]),
        # options of other engines
        ([*HERE, "--zone", "us-west4-a"], ["--zone is for --engine queued-resources and gke, not local"]),
        ([*HERE, "--partition", "gpu"], ["--partition is for --engine slurm, not local"]),
        ([*ON_GKE, "--package", "preinstalled"], ["--package is for --engine queued-resources", "not gke"]),
        ([*SLICES, "--image", "i"], ["--image is for --engine gke, not queued-resources"]),
    ],
)
def test_wrong_usage(run, machine, arguments, words):
    result = run("sweep", *arguments)
    assert result.code == 2 and not machine.lines
    assert result.err.strip().startswith("gpicl: error: ") and len(result.err.strip().splitlines()) == 1, result.err
    assert all(word in result.err for word in words), result.err
    assert machine.calls == [] and not list(machine.here.iterdir()) and not list(machine.home.iterdir())


ENVIRONMENT = {
    "GPICL_PROJECT": "their-project",
    "GPICL_ZONE": "us-west4-a",
    "GPICL_ACCELERATOR_TYPE": "v4-16",
    "GPICL_WORKDIR": "gs://bucket/study",
    "GPICL_PACKAGE": "preinstalled",
    "GPICL_SPOT": "yes",
    "GPICL_NUM_SLICES": "2",
    "GPICL_GIN_BINDINGS": "A = 1\nB = 2",
}


def test_options_come_from_the_environment_and_the_command_line_wins(run):
    result = run("sweep", "gin/sgd.gin", "--project=my-project", "--dry_run", **ENVIRONMENT)
    assert result.code == 0, result.err
    creates = [line for line in result.out.splitlines() if "queued-resources create" in line]
    assert len(creates) == 2
    for word in ("--project=my-project", "--accelerator-type=v4-16", "--runtime-version=tpu-ubuntu2204-base", "--spot"):
        assert word in creates[0].split()
    assert "  --gin_bindings\n  'A = 1'\n  --gin_bindings\n  'B = 2'\n" in result.out
    # What is meant for sweeps, or for another engine, does not stop other commands.
    assert run("train", "gin/sgd.gin", "--dry_run", **ENVIRONMENT).code == 0
    assert run("delete", "sgd", "--engine", "local", "--dry_run", **ENVIRONMENT | {"GPICL_WORKDIR": "runs"}).code == 0


def test_bindings_of_the_command_line_follow_those_of_the_environment(run):
    result = run("sweep", "gin/sgd.gin", "--gin_bindings", "C = 3", "--dry_run", **ENVIRONMENT)
    bindings = [line for line in result.out.splitlines() if line.endswith(("= 1'", "= 2'", "= 3'"))]
    assert bindings == ["  'A = 1'", "  'B = 2'", "  'C = 3'"]


@pytest.mark.parametrize(("text", "spot"), [("yes", True), ("1", True), ("true", True), ("no", False), ("", False)])
def test_flags_in_the_environment(run, text, spot):
    result = run("sweep", *SLICES, "--dry_run", GPICL_SPOT=text)
    assert ("--spot" in result.out) is spot


def test_a_flag_in_the_environment_must_be_yes_or_no(run):
    result = run("sweep", *SLICES, "--dry_run", GPICL_SPOT="maybe")
    assert result.code == 2 and "GPICL_SPOT must be yes or no" in result.err


def test_sweeps_alone_have_shards(run):
    result = run("train", *SLICES, "--num_slices", "2")
    assert result.code == 2 and "unknown option --num_slices" in result.err


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("gcloud", SLICES),
        ("kubectl", [*ON_GKE, "--image", "i"]),
        ("gpicl", [*HERE, "--package", "preinstalled"]),
    ],
)
def test_without_its_tool_an_engine_says_what_to_install(run, machine, tool, arguments):
    machine.installed.remove(tool)
    result = run("sweep", *arguments)
    assert result.code == 2 and tool in result.err and machine.calls == []


@pytest.mark.parametrize("command", ["sweep", "train", "status", "delete"])
def test_help_teaches(run, command):
    result = run(command, "--help")
    assert result.code == 0 and result.err == ""
    words = (f"usage: gpicl launch {command}", "launch/", "--project", "--engine", "Environment:", "Exit codes:")
    assert all(word in result.out for word in words)


@pytest.mark.parametrize("command", options.COMMANDS)
def test_every_option_is_in_the_help(run, command):
    fields = [field for field in dataclasses.fields(Options) if command in field.metadata.get("commands", ())]
    text = run(command, "--help").out
    assert len(fields) > 5 and [field.name for field in fields if f"--{field.name}" not in text] == []


def test_what_only_looks_or_plans_does_not_wait_for_jax():
    commands = [
        ["status", "--name", "x", "--engine", "local", "--workdir", "runs"],
        ["delete", "x", "--engine", "local", "--workdir", "runs", "--dry_run"],
        ["sweep", *HERE, "--dry_run"],
        ["sweep", *SLICES, "--dry_run"],
        ["sweep", *ON_GKE, "--image", "i", "--dry_run"],
    ]
    program = "import sys; from gpicl_flax.cli.main import main\n"
    program += f"for words in {commands}: assert main(['launch', *words]) == 0\n"
    program += "assert not {'jax', 'flax', 'numpy'} & {*sys.modules}, sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)


def test_gin_files_may_stand_between_options(run):
    scale = "gin/scale/cpu.gin"
    result = run("sweep", "--engine", "local", "gin/state_size.gin", "--num_slices", "2", scale, "--dry_run")
    assert result.code == 0 and result.out.count(f"--gin_file gin/state_size.gin --gin_file {scale} ") == 2


def test_names_of_gin_files_become_names_of_slices(run, machine):
    (machine.here / "2_My Study.gin").write_text("")
    result = run("sweep", "2_My Study.gin", *SLICES[1:], "--dry_run")
    assert result.code == 0 and "create run-2-my-study-1 " in result.out


def test_a_name_to_delete_is_given_once(run):
    where = ["--engine", "local", "--workdir", "runs", "--dry_run"]
    assert run("delete", "sweep", "--name", "sweep", *where).code == 0
    assert run("delete", "sweep", *where, GPICL_NAME="other").code == 0
    result = run("delete", "sweep", "--name", "other", *where)
    assert result.code == 2 and "one name at a time" in result.err
    assert run("delete", "sweep", "other", *where).code == 2
    result = run("delete", *where)
    assert result.code == 2 and "--name is needed" in result.err


def test_a_file_that_cannot_travel_is_refused(run, machine):
    (machine.here / "own.gin").write_text("include 'missing.gin'\n")
    result = run("sweep", "own.gin", *SLICES[1:])
    assert result.code == 2 and "own.gin includes 'missing.gin'" in result.err
    (machine.here / "up.gin").write_text("include '../up.gin'\n")
    (machine.folder / "up.gin").write_text("")
    result = run("sweep", "up.gin", *SLICES[1:])
    assert result.code == 2 and "cannot be taken along" in result.err
    (machine.here / "big.gin").write_text("#" * 200_000)
    result = run("sweep", "big.gin", *SLICES[1:])
    assert result.code == 2 and "too large for a start-up script" in result.err
    assert machine.calls == []


def test_two_files_of_one_name_cannot_travel_together(run, machine):
    for folder in ("a", "b"):
        (machine.folder / folder).mkdir()
        (machine.folder / folder / "own.gin").write_text(f"# {folder}\n")
    result = run("sweep", *(str(machine.folder / folder / "own.gin") for folder in "ab"), *SLICES[1:])
    assert result.code == 2 and "two gin files are called 'given/own.gin'" in result.err


def test_an_option_has_its_default_where_nothing_is_given():
    found = options.read("sweep", {"zone": None}, ["a.gin"], {})
    assert found == Options(command="sweep", gin_files=("a.gin",)) and found.engine == ENGINES[0]
    with pytest.raises(UsageError, match="--project is needed"):
        found.need("project")
