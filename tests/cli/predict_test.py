"""`gpicl predict` and `gpicl export`, as a user meets them."""

import io
import os
import threading

import numpy as np
import pandas as pd
import pytest
import sklearn.datasets

from gpicl_flax import InContextClassifier
from gpicl_flax.cli.main import main
from gpicl_flax.learners import learner
from gpicl_flax.records import run_folder

FEATURES = ["length", "width", "petal length", "petal width"]


@pytest.fixture(scope="module")
def iris():
    X, y = sklearn.datasets.load_iris(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(X))
    return X[order], np.array(["setosa", "versicolor", "virginica"])[y[order]]


@pytest.fixture
def csv(iris, tmp_path):
    """Files of 60 labelled examples and 90 queries; the queries have their columns in another order."""
    X, y = iris
    table = pd.DataFrame(X, columns=FEATURES).assign(kind=y)
    table[:60].to_csv(tmp_path / "context.csv", index=False)
    table.loc[60:, FEATURES[::-1]].to_csv(tmp_path / "queries.csv", index=False)
    return [
        *("--context", str(tmp_path / "context.csv")),
        *("--queries", str(tmp_path / "queries.csv")),
        *("--label", "kind"),
    ]


def test_predictions_of_csv_files(csv, iris, capsys, tmp_path):
    X, y = iris
    assert main(["predict", *csv]) == 0
    printed = capsys.readouterr().out
    table = pd.read_csv(io.StringIO(printed))
    assert list(table) == ["prediction", *(f"probability_{name}" for name in np.unique(y))]
    expected = InContextClassifier(random_state=0).fit(X[:60], y[:60]).predict_proba(X[60:])
    np.testing.assert_allclose(table.iloc[:, 1:], expected, atol=1e-5)
    assert (table["prediction"] == np.unique(y)[expected.argmax(axis=1)]).all()

    out = tmp_path / "predictions.csv"
    assert main(["predict", *csv, "--out", str(out)]) == 0
    assert capsys.readouterr().out == "" and out.read_text() == printed
    for other in (["--seed", "1", "--members", "2"], ["--shared_scale"]):
        assert main(["predict", *csv, *other]) == 0
        assert capsys.readouterr().out != printed


@pytest.mark.slow
def test_predictions_of_npz_files_with_an_exported_run(quick, tmp_path, capsys):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "context.npz", inputs=rng.normal(size=(7, 2, 2)), labels=np.arange(7) % 2)
    np.savez(tmp_path / "queries.npz", inputs=rng.normal(size=(3, 2, 2)))
    run, out = str(tmp_path / "run"), tmp_path / "learner"
    assert main(["train", *quick, "--workdir", run]) == 0
    assert main(["export", run, str(out)]) == 0
    assert {file.name for file in out.iterdir()} == {"config.gin", "run.json", learner.PARAMETERS}
    capsys.readouterr()
    assert main(["evaluate", run]) == 0
    of_the_run = capsys.readouterr().out.splitlines()
    assert main(["evaluate", str(out)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) > 2 and printed == of_the_run[1:-1]  # less the plateau and the picture
    assert {file.name for file in out.iterdir()} == {"config.gin", "run.json", learner.PARAMETERS}
    assert main(["evaluate", str(out), "--num_sequences", "0"]) == 2
    assert "num_sequences" in capsys.readouterr().err
    capsys.readouterr()
    files = ["--context", str(tmp_path / "context.npz"), "--queries", str(tmp_path / "queries.npz")]
    printed = []
    for checkpoint in (run, str(out)):
        assert main(["predict", *files, "--checkpoint", checkpoint]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    assert printed[0].splitlines()[0] == "prediction,probability_0,probability_1"
    assert len(printed[0].splitlines()) == 4


def test_a_mistake_is_found_before_the_model_is_read(csv, refused, tmp_path, monkeypatch):
    def load(path):
        raise AssertionError("too late")

    monkeypatch.setattr(learner, "load", load)
    for out, words in (
        (tmp_path, "is a folder, not a file"),
        (tmp_path / "none" / "o.csv", f"there is no folder {tmp_path / 'none'}"),
        (tmp_path / "context.csv" / "o.csv", "there is no folder"),
    ):
        refused(["predict", *csv, "--out", str(out)], words)
    refused(["predict", *csv, "--context", "/dev/stdin", "--queries", "/dev/stdin"], "the same stream")
    queries = tmp_path / "queries.csv"
    lines = queries.read_text().splitlines()
    for field, words in (
        ("inf", "'inf' is no finite number"),
        ("", "has no value"),
        ("1e30", "1e+30 is more than"),
        ("1,2", "has 5 fields, the header has 4"),
    ):
        queries.write_text("\n".join([*lines[:2], f"1,2,{field},4", *lines[3:]]))
        refused(["predict", *csv], "queries.csv: row 2 (line 3)", words)


def test_predictions_go_to_what_is_no_file_too(csv, tmp_path):
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    reader.start()
    assert main(["predict", *csv, "--members", "1", "--out", str(pipe)]) == 0
    reader.join()
    assert read[0].startswith("prediction,probability_setosa")
    link = tmp_path / "link.csv"
    link.symlink_to(tmp_path / "file.csv")
    assert main(["predict", *csv, "--members", "1", "--out", str(link)]) == 0
    assert link.is_symlink() and (tmp_path / "file.csv").read_text() == read[0]


def test_what_cannot_be_exported(refused, tmp_path, monkeypatch, capsys):
    shipped, out = str(learner.SHIPPED), tmp_path / "out"
    (tmp_path / "file.txt").write_text("")
    refused(["export", shipped, str(tmp_path / "file.txt" / "out")], "file.txt is no folder")

    def full(path, mode):
        if path.name.startswith(".run.json"):
            raise OSError(28, "No space left on device")
        return open(path, mode)

    monkeypatch.setattr(run_folder, "open", full, raising=False)
    assert main(["export", shipped, str(out), "--half"]) == 1
    assert capsys.readouterr().err == (
        "\ngpicl: error: [Errno 28] No space left on device; free some, and start the same command again\n"
    )
    assert not list(out.iterdir())


def test_mistakes_are_one_line_and_exit_2(csv, refused, tmp_path):
    context, queries = tmp_path / "context.csv", tmp_path / "queries.csv"
    arguments = ["predict", *csv]
    refused([*arguments, "--label", "sort"], "no column named sort", "--label")
    refused([*arguments, "--context", "none.csv"], "none.csv: no such file")
    refused([*arguments, "--checkpoint", str(tmp_path)], f"error: {tmp_path} is not a run folder")
    refused([*arguments, "--seed", "-1"], "--seed")
    refused(["export", str(tmp_path), str(tmp_path / "out")], "not a run folder")
    refused(["export", str(tmp_path), str(tmp_path)], "not empty")

    good = context.read_text()
    lines = good.splitlines()
    for changed, words in (
        ([lines[0], *(line.replace("setosa", "") for line in lines[1:])], "has no label"),
        ([lines[0], *(f"x{line}" for line in lines[1:])], "row 1 (line 2), column length: 'x"),
        ([lines[0], f",{lines[1].split(',', 1)[1]}", *lines[2:]], "row 1 (line 2), column length: has no value"),
        (lines[:1], "holds no examples"),
        ([], "not a readable CSV file"),
        ([f"{line},1" for line in lines], "in one of them only: 1"),
        ([lines[0], *(f"1,2,3,4,{n}" for n in range(11))], "11 classes"),
    ):
        context.write_text("\n".join(changed))
        refused(arguments, words)
    context.write_text(good)
    queries.write_text("\n".join(queries.read_text().splitlines()[:1]))
    refused(arguments, "queries.csv", "holds no examples")
    queries.write_bytes(b"\xff\xfe\x00")
    refused(arguments, "queries.csv", "not a readable CSV file")

    np.savez(tmp_path / "a.npz", x=np.zeros((3, 2)))
    np.savez(tmp_path / "b.npz", inputs=np.zeros((3, 2)))
    np.savez(tmp_path / "c.npz", inputs=np.zeros((3, 2)), labels=np.zeros(2))
    for name, words in (
        ("a", "no array named inputs"),
        ("b", "no array named labels"),
        ("c", "3 inputs, but 2 labels"),
    ):
        refused([*arguments, "--context", str(tmp_path / f"{name}.npz")], words)
