"""`gpicl sweep` as a user meets it."""

import json

import pytest

from gpicl_flax.cli.main import main
from gpicl_flax.records import lease
from gpicl_flax.records.run_folder import DONE, RunFolder


def test_sweep_lists_a_table_and_json(capsys):
    arguments = ["sweep", "--gin_file", "gin/fig6.gin", "--gin_bindings", "SEEDS = [0]"]
    assert main([*arguments, "--list"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert len(table) == 28 and table[-1] == "26 points"
    assert "parameters" in table[0] and "state (paper)" in table[0] and "state (exact)" in table[0]
    assert main([*arguments, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 26 and {row["run_id"] for row in rows} == {line.split()[0] for line in table[1:-1]}
    assert {"run_id", "bindings", "parameters", "state_size_paper", "state_size_exact"} == rows[0].keys()
    assert rows[0]["bindings"]["Run.model"] == "@LSTM()"


def test_sweep_runs_and_says_what_it_does(quick, refused, tmp_path, capsys):
    arguments = ["sweep", *quick, "--gin_bindings", "sweep.grids = [{'Run.seed': [0, 1]}]"]
    refused(arguments, "--workdir")
    assert main([*arguments, "--workdir", str(tmp_path / "sweep")]) == 0
    assert capsys.readouterr().out.count("seed=") == 2
    assert main([*arguments, "--workdir", str(tmp_path / "stacked"), "--stack", "8"]) == 0
    out, err = capsys.readouterr()
    assert "(these 2 train together, as a stack)" in out and "of 2 members off the plateau" in err
    # Both ways leave the same runs.
    assert {p.name for p in (tmp_path / "stacked").iterdir()} == {p.name for p in (tmp_path / "sweep").iterdir()}
    for wrong in ("0", "many", "-1"):
        with pytest.raises(SystemExit) as caught:
            main([*arguments, "--stack", wrong])
        assert caught.value.code == 2
        assert f"must be auto, off or a positive integer, not '{wrong}'" in capsys.readouterr().err


def test_a_quiet_sweep_says_what_went_wrong_alone(quick, tmp_path, capsys):
    grids = "sweep.grids = [{'adam.learning_rate': [1e-3, 1e30], 'Run.optimizer': @adam()}]"
    arguments = ["sweep", *quick, "--gin_bindings", grids, "--workdir", str(tmp_path), "--quiet"]
    assert main(arguments) == 1
    out, err = capsys.readouterr()
    (line,) = out.splitlines()
    assert "learning_rate=1e+30" in line and ": diverged at step" in line
    assert err.strip().startswith("gpicl: error: 1 of 2 points diverged")


@pytest.fixture
def sweep(quick):
    grids = "sweep.grids = [{'Run.seed': [0, 1, 2]}, {'LSTM.hidden_size': [8, 16], 'Run.seed': [0, 1]}]"
    return ["sweep", *quick, "--gin_bindings", grids]


def rows(capsys, arguments):
    assert main([*arguments, "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_only_and_shard_choose_points_in_every_mode(refused, sweep, tmp_path, capsys):
    everything = {row["run_id"] for row in rows(capsys, sweep)}
    shards = [{row["run_id"] for row in rows(capsys, [*sweep, "--shard", f"{n}/2"])} for n in (1, 2)]
    assert shards[0] | shards[1] == everything and not shards[0] & shards[1] and all(shards)
    only = {row["run_id"] for row in rows(capsys, [*sweep, "--only", "seed=1"])}
    assert only == {name for name in everything if "seed=1" in name}
    status = ["--status", "--workdir", str(tmp_path)]
    assert {row["run_id"] for row in rows(capsys, [*sweep, *status, "--shard", "2/2"])} == shards[1]
    assert {row["run_id"] for row in rows(capsys, [*sweep, *status, "--only", "seed=1"])} == only
    (budget, *_) = rows(capsys, [*sweep, "--dry_run", "--only", "=16_seed=1"])
    assert len(budget["points"]) == 1 and "=16_seed=1" in budget["points"][0]
    refused([*sweep, "--only", "GRU", "--list"], "no run id matches 'GRU'")
    for wrong in ("0/2", "3/2", "1", "a/b", "1/0"):
        with pytest.raises(SystemExit) as caught:
            main([*sweep, "--shard", wrong])
        assert caught.value.code == 2 and f"not '{wrong}'" in capsys.readouterr().err


def test_a_shard_without_points_says_so_and_is_done(sweep, tmp_path, capsys):
    assert main([*sweep, "--workdir", str(tmp_path), "--shard", "9/9"]) == 0
    assert "shard 9/9 has no points" in capsys.readouterr().out


def test_status_reads_the_folders_alone(sweep, tmp_path, capsys):
    names = [row["run_id"] for row in rows(capsys, sweep)]
    RunFolder(tmp_path / names[0]).mark(DONE)
    with lease.acquire(RunFolder(tmp_path / names[1])):
        assert main([*sweep, "--status", "--workdir", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["run", "id", "state"] and lines[-1] == "7 points: 1 done, 1 running, 5 waiting"
    assert [line.split()[:2] for line in lines[1:3]] == [[names[0], "done"], [names[1], "running"]]


def test_a_dry_run_says_what_is_left_and_what_it_costs(sweep, tmp_path, capsys):
    names = [row["run_id"] for row in rows(capsys, sweep)]
    RunFolder(tmp_path / names[0]).mark(DONE)
    before = sorted(tmp_path.rglob("*"))
    assert main([*sweep, "--dry_run", "--workdir", str(tmp_path), "--chip", "v4", "--utilization", "0.5"]) == 0
    out = capsys.readouterr().out
    assert "7 points: 1 done, 6 waiting" in out and "An estimate for v4" in out and "50% of the chip's peak" in out
    assert sorted(tmp_path.rglob("*")) == before
    for name in names:
        RunFolder(tmp_path / name).mark(DONE)
    assert main([*sweep, "--dry_run", "--workdir", str(tmp_path)]) == 0
    assert "0 points to run" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--status"], "--workdir is needed"),
        (["--list", "--workdir", "x"], "do not look into --workdir"),
        (["--list", "--chip", "v4"], "--chip is for --dry_run"),
        (["--status", "--workdir", "x", "--topology", "v5e:4x4x1"], "--topology is for --dry_run"),
        (["--dry_run", "--topology", "v5e:4x4x1", "--utilization", "0.5"], "--topology names the chip"),
        (["--dry_run", "--stack", "4"], "--stack is for"),
        (["--list", "--stack", "4"], "--stack is for"),
        (["--dry_run", "--topology", "v5e:4x4x1", "--stack", "auto"], "give a number"),
        (["--list", "--quiet"], "--quiet is for running"),
        (["--status", "--workdir", "x", "--quiet"], "--quiet is for running"),
        (["--dry_run", "--chip", "v99"], "v99"),
        (["--dry_run", "--utilization", "2"], "utilization"),
    ],
)
def test_options_that_would_do_nothing_are_refused(refused, sweep, options, words):
    refused([*sweep, *options], words)


def test_a_file_without_a_grid_is_no_sweep(refused, gin_file):
    refused(["sweep", "--gin_file", gin_file, "--list"], "no sweep")


def test_train_leaves_a_run_that_another_process_trains(quick, other_holds, tmp_path, capsys):
    arguments = ["train", *quick, "--workdir", str(tmp_path / "run")]
    folder = RunFolder(tmp_path / "run")
    with lease.acquire(folder) as own:
        assert main(arguments) == 1
        err = capsys.readouterr().err.strip()
        assert "is being trained by host" in err and "\n" not in err and not folder.config.exists()
        assert own.number == 1
    other_holds(folder, number=2, time=0.0)
    assert main(arguments) == 0
    newest = lease.newest(folder)
    assert (newest.number, newest.why, folder.ended) == (3, "done", "DONE")
