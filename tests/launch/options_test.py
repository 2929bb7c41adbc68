"""What is wrong is said in one line, with exit code 2, before anything is made."""

import json

import pytest

PLACE = ["--project", "my-project", "--zone", "us-west4-a", "--accelerator_type", "v5litepod-16"]
SLICES = ["gin/sgd.gin", *PLACE, "--workdir", "gs://bucket/study", "--package", "preinstalled"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["a gin file is needed"]),
        (["gin/none.gin", "--engine", "local"], ["no gin file 'gin/none.gin'"]),
        ([*SLICES, "--zoen", "x"], ["unknown option --zoen"]),
        ([*SLICES, "--zone"], ["--zone needs a value"]),
        ([*SLICES, "--zone="], ["--zone needs a value"]),
        ([*SLICES, "--spot=yes"], ["--spot takes no value"]),
        ([*SLICES, "--zone", "us west"], ["--zone", "us west"]),
        ([*SLICES, "--engine", "slurm"], ["--engine must be queued-resources, gke or local"]),
        (["gin/sgd.gin", *PLACE], ["--workdir is needed", "GPICL_WORKDIR"]),
        (["gin/sgd.gin", *PLACE, "--workdir", "runs"], ["--workdir must be gs://BUCKET/FOLDER"]),
        ([*SLICES, "--workdir", "gs://bucket/*"], ["--workdir must be gs://BUCKET/FOLDER"]),
        ([*SLICES, "--engine", "local"], ["--workdir must be a folder of this machine"]),
        (["gin/sgd.gin", "--workdir", "gs://b/x"], ["--project is needed", "GPICL_PROJECT"]),
        ([*SLICES, "--accelerator_type", "v5e-16"], ["unknown accelerator type 'v5e-16'"]),
        ([*SLICES, "--accelerator_type", "v4-12"], ["there is no v4-12", "cores"]),
        ([*SLICES, "--num_slices", "0"], ["--num_slices must be a positive integer"]),
        ([*SLICES, "--num_slices", "$(touch pwned)"], ["--num_slices must be a positive integer"]),
        ([*SLICES, "--max_restarts", "-1"], ["--max_restarts must be an integer"]),
        ([*SLICES, "--poll_seconds", "soon"], ["--poll_seconds must be a number of seconds"]),
        ([*SLICES, "--name", "State_Size"], ["--name must be 1 to 40 of a-z"]),
        ([*SLICES, "--scale", "tiny"], ["--scale tiny", "cpu, gpu, laptop"]),
        ([*SLICES, "--stack", "many"], ["--stack must be auto, off or a positive integer"]),
        ([*SLICES, "--engine", "gke"], ["--image is needed"]),
        ([*SLICES, "--data_dir", "none"], ["--data_dir: there is no folder 'none'"]),
        ([*SLICES, "--data_dir", "/"], ["--data_dir is for the package of this checkout", "TaskDistribution.data_dir"]),
        (
            [*SLICES, "--engine", "gke", "--image", "i", "--data_dir", "data"],
            ["--data_dir must be an absolute path in the container"],
        ),
        (
            ["gin/sgd.gin", "--engine", "local", "--package", "gpicl_flax==1"],
            ["--package 'gpicl_flax==1' is for slices"],
        ),
    ],
)
def test_wrong_usage(cloud, arguments, words):
    result = cloud.run("tpu_sweep.sh", *arguments)
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr.startswith("tpu_sweep.sh: error: ") and result.stderr.count("\n") == 1, result.stderr
    assert all(word in result.stderr for word in words), result.stderr
    assert cloud.calls("gcloud") == cloud.calls("kubectl") == cloud.calls("gpicl") == []
    assert not list(cloud.here.iterdir())


def test_options_come_from_the_environment_and_the_command_line_wins(cloud):
    environment = {
        "GPICL_PROJECT": "their-project",
        "GPICL_ZONE": "us-west4-a",
        "GPICL_ACCELERATOR_TYPE": "v4-16",
        "GPICL_WORKDIR": "gs://bucket/study",
        "GPICL_PACKAGE": "preinstalled",
        "GPICL_SPOT": "yes",
        "GPICL_NUM_SLICES": "2",
        "GPICL_GIN_BINDINGS": "A = 1\nB = 2",
    }
    result = cloud.run("tpu_sweep.sh", "gin/sgd.gin", "--project=my-project", "--dry_run", **environment)
    assert result.returncode == 0, result.stderr
    creates = [line for line in result.stdout.splitlines() if "queued-resources create" in line]
    assert len(creates) == 2
    for word in ("--project=my-project", "--accelerator-type=v4-16", "--runtime-version=tpu-ubuntu2204-base", "--spot"):
        assert word in creates[0].split()
    assert "  --gin_bindings\n  A\\ =\\ 1\n  --gin_bindings\n  B\\ =\\ 2\n" in result.stdout
    # What is meant for sweeps alone does not stop a single run.
    assert cloud.run("tpu_train.sh", "gin/sgd.gin", "--dry_run", **environment).returncode == 0


def test_a_flag_in_the_environment_must_be_yes_or_no(cloud):
    result = cloud.run("tpu_sweep.sh", *SLICES, "--dry_run", GPICL_SPOT="maybe")
    assert result.returncode == 2 and "GPICL_SPOT must be yes or no" in result.stderr


def test_sweeps_alone_have_shards(cloud):
    result = cloud.run("tpu_train.sh", *SLICES, "--num_slices", "2")
    assert result.returncode == 2 and "unknown option --num_slices" in result.stderr


def test_without_gcloud_it_says_what_to_install(cloud):
    for tool in ("bash", "dirname", "basename", "tr", "sed", "grep", "cat", "sha256sum", "env"):
        import shutil

        (cloud.folder / "bin" / tool).unlink(missing_ok=True)
        (cloud.folder / "bin" / tool).symlink_to(shutil.which(tool))
    (cloud.folder / "bin" / "gcloud").unlink()
    result = cloud.run("tpu_sweep.sh", *SLICES, PATH=str(cloud.folder / "bin"))
    assert result.returncode == 2 and "gcloud is not installed" in result.stderr


@pytest.mark.parametrize("script", ["tpu_sweep.sh", "tpu_train.sh", "status.sh", "delete.sh"])
def test_help_teaches(cloud, script):
    result = cloud.run(script, "--help")
    assert result.returncode == 0 and result.stderr == ""
    assert all(
        word in result.stdout for word in ("usage: launch/", "--project", "--engine", "Environment:", "Exit codes:")
    )


def test_names_of_gin_files_become_names_of_slices(cloud):
    (cloud.here / "2_My Study.gin").write_text("")
    result = cloud.run("tpu_sweep.sh", "2_My Study.gin", *SLICES[1:], "--dry_run")
    assert result.returncode == 0 and "create run-2-my-study-1 " in result.stdout


def test_a_file_that_cannot_travel_is_refused(cloud):
    (cloud.here / "own.gin").write_text("include 'missing.gin'\n")
    result = cloud.run("tpu_sweep.sh", "own.gin", *SLICES[1:])
    assert result.returncode == 2 and "own.gin includes 'missing.gin'" in result.stderr
    (cloud.here / "big.gin").write_text("#" * 200_000)
    result = cloud.run("tpu_sweep.sh", "big.gin", *SLICES[1:])
    assert result.returncode == 2 and "too large for a start-up script" in result.stderr
    assert cloud.verbs("create") == []


def test_every_option_is_in_the_help(cloud):
    import pathlib
    import re

    text = (pathlib.Path(__file__).parents[2] / "launch/lib/submit.sh").read_text()
    options = re.search(r"SUBMIT_OPTIONS='([^']+)'", text).group(1).split()
    assert len(options) > 25, json.dumps(options)
    help_text = cloud.run("tpu_sweep.sh", "--help").stdout
    assert [option for option in options if f"--{option}" not in help_text] == []
