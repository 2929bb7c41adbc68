"""The tables of a study give what the folders of its runs give."""

import gzip
import json
import math
import random
import re

import pandas as pd
import pytest

from gpicl_flax.analysis.data import study, write_tables
from gpicl_flax.cli.main import main
from gpicl_flax.errors import UsageError
from gpicl_flax.records.run_folder import RunFolder, write_json

NASTY = [
    "10", "1e3", "nan", "None", "True", "null", "inf", "", " ", " a ", "a,b", 'say "no"', '"', '"quoted"',
    "Zürich → 東京", "two\nlines", "a\rb", "tab\t", "\x00", "-0", "=1+1", "[1]", "\\", "\u2028",
]  # fmt: skip
NUMBERS = [0, 1, -0.0, 0.1, 1 / 3, 1e-310, 1e300, 2.0**-149, 0.1 + 2**-30, 16777217.0, 3e38, math.nan, math.inf, None]


def add_telemetry(folder, values=(0.1, 0.30000001192092896, 2.5e-12)):
    """Telemetry at every second row, of tensors at every fourth; one quantity never was finite."""
    rows = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    for place, row in enumerate(rows[::2]):
        value = values[place % len(values)]
        row["telemetry"] = {"grad_norm": value, "grad_cosine": None, "first_moment_norm": 1, "second_moment_norm": 2.5}
        if place % 2:
            row["telemetry"]["tensors"] = {"block_0/kernel": {"grad_norm": value}, "head": {"grad_norm": None}}
    folder.metrics.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return folder


@pytest.fixture
def sweep(make_run, make_curve, tmp_path):
    """Makes runs that are done, diverged, unfinished and damaged, of several models, with labels easily misread."""
    path = tmp_path / "folders" / "sweep"
    curves = [make_curve("seen"), make_curve("unseen", last=0.6), make_curve("unseen", 'a "set", ü', last=0.4)]
    common = {"evaluations": {50: curves, 100: curves}, "unseen_left_at": 60}
    for seed in (0, 1):
        for size, left_at in (("10", 30), ("nan", None)):
            labels = {"intervention": "paper" if left_at is None else "a, b", "size": size}
            settings = {"Run.seed": seed, "adam.learning_rate": "1e-3", "Run.optimizer": "@adam()"}
            run = make_run(
                path / f"{size}_{seed}", left_at=left_at, labels=labels, seed=seed, settings=settings, **common
            )
            add_telemetry(run)
    make_run(path / "bounded", num_tasks=64, labels={"intervention": "None", "size": ""}, **common)
    diverged = make_run(path / "diverged", ended="DIVERGED", left_at=None, evaluations={}, model="LSTM", parameters=7)
    rows = '{"step": 110, "loss": NaN, "loss_ema": null, "diagnostics": {"unseen_loss": NaN, "other": {"a": null}}}\n'
    diverged.metrics.write_text(diverged.metrics.read_text() + rows)
    make_run(path / "unfinished", ended=None, evaluations={50: curves[:1]}, steps=60, diagnostics_period=None)
    make_run(path / "no steps", steps=0, diagnostics_period=None, model="OnlineSGD", evaluations={0: curves})
    damaged = make_run(path / "damaged ü, 1", labels={"size": "True"})
    damaged.run_info.write_text("{")
    damaged.metrics.write_text("garbage\n" + damaged.metrics.read_text() + '{"step": 110')
    begun = RunFolder(path / "begun")
    begun.path.mkdir()
    begun.config.write_text("")
    return path


def assert_same(folders, tables):
    """Both have the same runs, but for where they lie."""
    one, other = study.load(folders), study.load(tables)
    moved = one.table.assign(folder=[text.replace(str(folders), str(tables)) for text in one.table["folder"]])
    pd.testing.assert_frame_equal(moved, other.table, check_exact=True)
    for name in ("evaluations", "curves", "losses", "heads"):
        assert getattr(one, name).to_csv() == getattr(other, name).to_csv()
        pd.testing.assert_series_equal(getattr(one, name).dtypes, getattr(other, name).dtypes)
    assert (one.interventions, one.single) == (other.interventions, other.single)
    for label in one.table.index:
        run, kept = one.run(label), other.run(label)
        assert run.run_id == kept.run_id and run.gaps == kept.gaps
        assert repr(run.diagnostics) == repr(kept.diagnostics)
        pd.testing.assert_frame_equal(run.metrics[["loss", "loss_ema"]], kept.metrics, check_exact=True)
        order = sorted(run.telemetry)
        assert order == sorted(kept.telemetry)
        pd.testing.assert_frame_equal(run.telemetry[order], kept.telemetry[order], check_exact=True)


def report_of(workdir, out):
    """The files of a report, without where its runs lie; an SVG names its clip paths by where they lie in memory."""
    assert main(["report", str(workdir), "--out", str(out)]) == 0
    place = str(workdir).encode()
    return {path.name: path.read_bytes().replace(place, b"") for path in out.iterdir() if path.suffix != ".svg"}


@pytest.mark.slow
def test_tables_give_the_report_of_the_folders(sweep, tmp_path, capsys):
    kept = tmp_path / "kept" / "sweep"
    assert main(["report", str(sweep), "--tables", str(kept)]) == 0
    assert capsys.readouterr().out == f"{kept}\n" and not (sweep / "report").exists()
    assert_same(sweep, kept)
    assert report_of(sweep, tmp_path / "one") == report_of(kept, tmp_path / "other")


@pytest.mark.parametrize(
    "name", [*(pytest.param(name, marks=pytest.mark.slow) for name in ("10_0", "diverged")), "begun"]
)
def test_tables_of_one_run_give_its_report(sweep, tmp_path, name):
    kept = tmp_path / "kept" / name
    write_tables.write(sweep / name, kept)
    assert_same(sweep / name, kept)
    assert report_of(sweep / name, tmp_path / "one") == report_of(kept, tmp_path / "other")


@pytest.mark.parametrize("seed", range(20))
def test_any_text_and_number_comes_back(make_run, make_curve, tmp_path, seed):
    draw = random.Random(seed)
    for number in range(3):
        labels = {axis: draw.choice(NASTY) for axis in ("intervention", "x,y", "ü")}
        curves = [make_curve("unseen", f"set {draw.choice(NASTY)}"), make_curve("seen", last=draw.random())]
        run = make_run(
            tmp_path / "sweep" / f"run{number}", labels=labels, evaluations={100: curves}, seed=2 ** draw.randrange(70)
        )
        log = [json.loads(line) for line in run.metrics.read_text().splitlines()]
        log[-1]["diagnostics"] = {name: draw.choice(NASTY + NUMBERS) for name in sorted(draw.sample(NASTY, 4))} | {
            "x": [],
            "y": {},
        }
        for row in log:
            row |= {"loss": draw.choice(NUMBERS), "loss_ema": draw.choice(NUMBERS)}
        run.metrics.write_text("".join(f"{json.dumps(row)}\n" for row in log))
        add_telemetry(run, draw.sample(NUMBERS, 3))
    write_tables.write(tmp_path / "sweep", tmp_path / "kept")
    assert_same(tmp_path / "sweep", tmp_path / "kept")


def test_the_same_runs_give_the_same_bytes_and_replace_other_tables(sweep, make_run, tmp_path):
    for name in ("one", "other"):
        write_tables.write(sweep, tmp_path / name)
    one, other = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "other"))
    assert one == other and "telemetry.csv.gz" in one
    make_run(tmp_path / "run", diagnostics_period=None)
    write_tables.write(tmp_path / "run", tmp_path / "one")
    names = {path.name for path in (tmp_path / "one").iterdir()}
    assert names == {"study.json", "runs.csv", "evaluations.csv", "curves.csv.gz", "losses.csv.gz"}


def test_floats_that_were_measured_in_float32_are_short(make_run, tmp_path):
    run = make_run(tmp_path / "run")
    rows = [{"step": step, "loss": 0.30000001192092896, "loss_ema": 0.3} for step in (1, 2)]
    run.metrics.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    write_tables.write(run.path, tmp_path / "kept")
    text = gzip.decompress((tmp_path / "kept" / "losses.csv.gz").read_bytes()).decode()
    assert text == "run_id,step,loss,loss_ema\nrun,1,0.3,0.3\nrun,2,0.3,0.3\n"
    assert_same(run.path, tmp_path / "kept")


@pytest.fixture
def kept(make_run, make_curve, tmp_path):
    for seed in (0, 1):
        add_telemetry(
            make_run(tmp_path / "folders" / f"run{seed}", seed=seed, evaluations={100: [make_curve("unseen")]})
        )
    return write_tables.write(tmp_path / "folders", tmp_path / "kept")


def change(path, old, new):
    """Replaces a piece of a table once."""
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    assert old in text
    data = text.replace(old, new, 1).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


@pytest.mark.parametrize(
    ("name", "old", "new", "where"),
    [
        ("runs.csv", "Transformer,1000", "Transformer,abc", "runs.csv, line 2: column parameters holds 'abc'"),
        ("runs.csv", "run_id", "run", "runs.csv, line 1: there is no column run_id"),
        ("runs.csv", "run0", "../../x", "runs.csv, line 2: '../../x' is no run_id"),
        ("runs.csv", "run1", "run0", "runs.csv has two runs of one run_id"),
        ("runs.csv", "run1", '"run1', "runs.csv cannot be read as a CSV file"),
        ("runs.csv", "run0,DONE", "run0,DONE,1", "runs.csv, line 2: "),
        ("runs.csv", "true", "1", "runs.csv, line 2: column plateau_left holds '1', which is no bool"),
        (
            "evaluations.csv",
            "run0,100",
            "run0,1.5",
            "evaluations.csv, line 2: column step holds '1.5', which is no int",
        ),
        ("evaluations.csv", "run0,", "run7,", "evaluations.csv, line 2: runs.csv has no run 'run7'"),
        ("curves.csv.gz", "digits,unseen,3", "digits,unseen,2", "curves.csv.gz, line 5: position 2 does not follow"),
        ("losses.csv.gz", "run0,20,", "run0,x,", "losses.csv.gz, line 3: column step"),
        ("losses.csv.gz", "run0,10,2.24,2.25\n", "", "losses.csv.gz has 19 rows, and study.json says 20"),
        ("diagnostics.csv.gz", "[[", "[" * 100_000, "diagnostics.csv.gz, line 2: column "),
        ("telemetry.csv.gz", "head", '"""head"', "telemetry.csv.gz, line "),
        ("study.json", '"format": 1', '"format": 2', "study.json is of format 2, and this version reads 1"),
        ("study.json", '"single_run": false', '"single_run": 5', "study.json is damaged"),
        ("study.json", "{", "", "study.json is damaged, or was not written by gpicl"),
    ],
)
def test_damage_is_one_line_with_its_place(kept, capsys, name, old, new, where):
    change(kept / name, old, new)
    assert main(["report", str(kept)]) == 2
    error = capsys.readouterr().err.strip()
    assert where in error and "\n" not in error and len(error.replace(str(kept), "")) < 300


@pytest.mark.parametrize("name", ["runs.csv", "losses.csv.gz"])
@pytest.mark.parametrize("damage", ["missing", "cut", "empty", "binary"])
def test_a_file_that_is_no_table_is_named(kept, name, damage):
    path = kept / name
    data = path.read_bytes()
    path.unlink() if damage == "missing" else path.write_bytes(
        {"cut": data[: len(data) // 2], "empty": b"", "binary": b"\xff\xfe\x00"}[damage]
    )
    with pytest.raises(UsageError, match=re.escape(name)):
        study.load(kept)


def test_tables_go_neither_among_their_runs_nor_come_from_tables(kept, tmp_path, capsys):
    folders = tmp_path / "folders"
    for target in (folders, folders / "run0"):
        assert main(["report", str(folders), "--tables", str(target)]) == 2
        assert "holds the runs themselves" in capsys.readouterr().err
    assert main(["report", str(kept), "--tables", str(tmp_path / "again")]) == 2
    assert "copy the folder" in capsys.readouterr().err
    assert main(["report", str(folders), "--tables", str(tmp_path / "x"), "--after_drop", "3"]) == 2
    assert "--after_drop changes no table" in capsys.readouterr().err


def test_a_folder_beside_the_tables_says_where_they_are(kept, tmp_path, capsys):
    (tmp_path / "all").mkdir()
    kept.rename(tmp_path / "all" / "kept")
    assert main(["report", str(tmp_path / "all")]) == 2
    assert f"It holds the tables of 1 study: give {tmp_path / 'all' / 'kept'}" in capsys.readouterr().err
    (tmp_path / "all" / "kept" / "study.json").unlink()
    assert main(["report", str(tmp_path / "all" / "kept")]) == 2
    assert "Its runs.csv is not a study's without study.json" in capsys.readouterr().err


def test_tables_beside_their_runs_are_no_run(kept, tmp_path):
    write_json(tmp_path / "folders" / "kept" / "study.json", {})
    assert study.load(tmp_path / "folders").table["run_id"].tolist() == ["run0", "run1"]
