"""--engine slurm: what is submitted, and what is there already. Jobs run in slurm_real_test."""

import pathlib

import pytest

from gpicl_flax.launch import slurm
from gpicl_flax.launch.options import Options
from gpicl_flax.launch.system import Answer
from tests.launch.prepared import pretend_prepared

OPTIONS = ["gin/quickstart.gin", "--engine", "slurm", "--name", "sweep"]
WHERE = ["--engine", "slurm", "--name", "sweep"]


@pytest.fixture
def workdir(machine):
    return machine.folder / "shared"


@pytest.fixture
def sweep(run, workdir):
    return lambda *more: run("sweep", *OPTIONS, "--workdir", str(workdir), *more)


def arrays(machine):
    """The --array of each sbatch."""
    submissions = [words for words in machine.slurm.calls if words[0] == "sbatch"]
    return [word.removeprefix("--array=") for words in submissions for word in words if word.startswith("--array=")]


def end(machine, workdir, shard, code=0):
    """Lets a job end."""
    [job] = [job for job in machine.slurm.jobs if job.shard == shard]
    machine.slurm.jobs.remove(job)
    digest = job.comment.removeprefix("gpicl ")
    marker = workdir / f".launch/sweep-{shard}.result"
    marker.write_text(f"exit_code={code}\ndigest={digest}\nfinished=now\nwhy=\n")


def test_a_job_array_has_a_task_for_each_shard(sweep, machine, workdir):
    where = ["--partition", "gpu", "--gres", "gpu:1", "--time", "8:00:00", "--array_limit", "2", "--qos", "low"]
    result = sweep("--num_slices", "3", *where)
    assert result.code == 0, result.err
    [words] = [words for words in machine.slurm.calls if words[0] == "sbatch"]
    expected = ["--job-name=sweep", "--array=1-3%2", "--partition=gpu", "--gres=gpu:1", "--time=8:00:00", "--qos=low"]
    assert set(expected) <= set(words) and f"--output={workdir}/.launch/sweep-%a.log" in words
    script = machine.slurm.jobs[0].script
    assert script.startswith("#!/usr/bin/env bash\nSHARD=$SLURM_ARRAY_TASK_ID\n") and "\nENGINE=slurm\n" in script
    assert "job 1: submitted, shards 1-3" in result.out


def test_a_second_call_submits_only_what_is_missing(sweep, machine, workdir):
    assert sweep("--num_slices", "4").code == 0
    for shard, code in ((1, 0), (2, 1), (4, 2)):
        end(machine, workdir, shard, code)
    result = sweep("--num_slices", "4")
    assert result.code == 0 and "sweep-1: done already" in result.out
    assert "sweep-3: there already, job 1_3, PENDING" in result.out
    assert arrays(machine) == ["1-4", "2,4"]
    assert not (workdir / ".launch/sweep-2.result").exists()  # it would end the new job at once


def test_a_job_that_does_something_else_is_not_taken_for_this_one(sweep, machine):
    assert sweep().code == 0
    result = sweep("--gin_bindings", "Run.seed = 7")
    assert result.code == 2 and "was submitted with other arguments" in result.err and arrays(machine) == ["1"]


def test_status_and_delete(sweep, run, machine, workdir):
    assert "no jobs" in run("status", *WHERE).out
    assert sweep("--num_slices", "2").code == 0
    end(machine, workdir, 2)
    status = run("status", *WHERE, "--workdir", str(workdir))
    lines = [" ".join(line.split()) for line in machine.lines]
    assert status.code == 0 and lines[0] == "sweep-1 PENDING, job 1_1, (Priority)"
    assert lines[1].startswith("sweep-2 ended with exit code 0 at now")
    assert run("delete", *WHERE).code == 2 and machine.slurm.jobs
    assert run("delete", *WHERE, "--yes").code == 0 and not machine.slurm.jobs
    again = run("delete", *WHERE, "--yes")
    assert again.code == 0 and "no jobs" in again.out


@pytest.mark.parametrize("program", ["sbatch", "squeue"])
def test_what_slurm_complains_about_is_told(sweep, machine, program):
    machine.slurm.errors[program] = "error: Invalid account"
    result = sweep()
    assert result.code == 1 and "error: Invalid account" in result.err and not machine.slurm.jobs


def test_without_slurm_it_says_so(sweep, machine):
    machine.installed.remove("sbatch")
    result = sweep()
    assert result.code == 2 and "sbatch is not installed" in result.err


@pytest.mark.parametrize(
    ("numbers", "text"), [([1], "1"), ([1, 2, 3], "1-3"), ([1, 3, 4, 9], "1,3-4,9"), (range(2, 12), "2-11")]
)
def test_ranges(numbers, text):
    assert slurm.ranges(numbers) == text


def test_tasks_of_the_queue(machine, monkeypatch):
    rows = [
        ("9", "N/A", "RUNNING", "a1", "gpicl 0123"),  # no array
        ("8", "4", "RUNNING", "a2", "(null)"),  # somebody's own array of the same name
        ("7", "10", "PENDING", "(Nodes required for job are DOWN, DRAINED)", "gpicl 0123"),
        ("7", "2", "RUNNING", "a[1-2]", "gpicl 0123"),
    ]
    monkeypatch.setattr(machine.slurm, "_squeue", lambda _: Answer(0, "\n".join(map("\t".join, rows)), ""))
    assert slurm.queue(Options(command="status", name="sweep"), machine) == [
        slurm.ArrayTask("7_2", 2, "RUNNING", "a[1-2]", "0123"),
        slurm.ArrayTask("7_10", 10, "PENDING", "(Nodes required for job are DOWN, DRAINED)", "0123"),
    ]


def test_a_gin_file_that_was_changed_meanwhile_is_something_else(run, machine, workdir):
    """Jobs that wait would read it as it is now."""
    (machine.here / "part.gin").write_text("Run.seed = 1\n")
    (machine.here / "own.gin").write_text("include 'gin/quickstart.gin'\ninclude 'part.gin'\n")
    given = ["sweep", "own.gin", *WHERE, "--workdir", str(workdir)]
    assert run(*given).code == 0 and "there already" in run(*given).out
    (machine.here / "part.gin").write_text("Run.seed = 2\n")
    result = run(*given)
    assert result.code == 2 and "was submitted with other arguments" in result.err and arrays(machine) == ["1"]


def test_longer_jobs_are_no_other_jobs(sweep, machine):
    assert sweep("--time", "1:00:00").code == 0
    assert "there already" in sweep("--time", "2-00", "--partition", "long").out and arrays(machine) == ["1"]


def test_several_nodes_have_a_process_each(sweep):
    result = sweep("--nodes", "4", "--dry_run")
    assert "--nodes=4 --ntasks-per-node=1" in result.out and "\nNODES=4\n" in result.out


def test_base_datasets_may_have_any_path_because_nodes_read_them_where_they_are(run, machine, workdir):
    folder = machine.folder / "data [1]"
    pretend_prepared(folder, "mnist", "fashion_mnist")
    given = ["gin/state_size.gin", *WHERE, "--workdir", str(workdir), "--data_dir", str(folder)]
    result = run("sweep", *given)
    assert result.code == 0, result.err
    assert f"\nexport TFDS_DATA_DIR='{folder}'\n" in machine.slurm.jobs[0].script


def test_a_file_for_setup_is_read_in_the_job(sweep, machine):
    (machine.here / "my setup.sh").write_text("module load cuda\n")
    result = sweep("--setup", "my setup.sh", "--dry_run")
    assert f"\nsource '{machine.here}/my setup.sh' || {{" in result.out


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--time", "3"], "--time 3 must be more than --grace_seconds 120 and a minute"),
        (["--time", "0:02:59"], "--time 0:02:59 must be more"),
        (["--setup", "module load 'cuda"], "--setup must be a file or a command"),
    ],
)
def test_wrong_usage(sweep, machine, workdir, more, words):
    result = sweep(*more)
    assert result.code == 2 and words in result.err and not machine.slurm.jobs and not pathlib.Path(workdir).exists()


@pytest.mark.parametrize("time", ["4", "3:01", "0:03:01", "0-1", "1-0:00", "0"])  # 0: no limit
def test_times_that_are_long_enough(sweep, time):
    assert f"--time={time} " in sweep("--time", time, "--dry_run").out
