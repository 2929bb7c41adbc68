"""`gpicl report` as a user meets it."""

import re

import pandas as pd
import pytest

from gpicl_flax.analysis.data import one_run
from gpicl_flax.cli.main import main


@pytest.fixture
def sweep(make_run, make_curve, tmp_path):
    """Eight runs: two interventions, two numbers of tasks, two seeds; one of them diverged, one is damaged."""
    curves = [make_curve("seen"), make_curve("unseen", last=0.6), make_curve("unseen", "other", last=0.4)]
    for intervention, left_at in (("paper", None), ("matched", 30)):
        for num_tasks in (64, None):
            for seed in (0, 1):
                make_run(
                    tmp_path / "sweep" / f"{intervention}_{num_tasks}_{seed}",
                    left_at=left_at,
                    unseen_left_at=left_at and 60,
                    labels={"intervention": intervention, "dataset": "digits"},
                    num_tasks=num_tasks,
                    seed=seed,
                    evaluations={50: curves, 100: curves},
                    ended="DIVERGED" if (intervention, num_tasks, seed) == ("paper", None, 1) else "DONE",
                )
    (tmp_path / "sweep" / "matched_None_1" / "run.json").write_text("{")
    return tmp_path / "sweep"


def links(page):
    return set(re.findall(r'(?:href|src)="([^"]+)"', page))


@pytest.mark.slow
def test_a_sweep_has_a_page_with_every_figure(sweep, capsys, monkeypatch):
    read, found = one_run.read, []
    monkeypatch.setattr(one_run, "read", lambda folder: found.append(folder.path.name) or read(folder))
    assert main(["report", str(sweep)]) == 0
    # Each run is read once, but for those whose diagnostics are drawn, one an intervention.
    assert len(found) == 8 + 2 and set(found[8:]) == {"paper_64_0", "matched_64_0"}
    out = sweep / "report"
    assert capsys.readouterr().out == f"{out / 'index.html'}\n"
    page = (out / "index.html").read_text()
    assert all((out / link).stat().st_size for link in links(page))
    stems = {
        "survival_training",
        "survival_unseen",
        "plateau_length_training",
        "plateau_length_unseen",
        "cost",
        "phases",
        "matching_growth",
    }
    stems |= {"diagnostics_paper_64_0", "diagnostics_matched_64_0"}
    assert {f"{stem}.{ending}" for stem in stems for ending in ("png", "svg", "csv")} <= links(page)
    assert "8 runs: 7 done, 1 diverged." in page
    assert "matched_None_1: run.json is missing or damaged" in page
    assert "1 of the runs that ended on it diverged there" in page
    assert "at least" in page and "<script" not in page
    runs = pd.read_csv(out / "runs.csv").set_index("run_id")
    assert (
        len(runs) == 8
        and runs.loc["matched_64_0", "phase"] == "Generalize"
        and runs.loc["paper_64_0", "phase"] == "Plateau"
    )


def test_one_run_has_its_learning_curve_and_diagnostics(make_run, tmp_path):
    make_run(tmp_path / "run", ended=None)
    assert main(["report", str(tmp_path / "run"), "--out", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out" / "index.html").read_text()
    assert {"learning_curve.png", "diagnostics_run.png"} <= links(page) and "1 run: 1 not ended." in page
    assert not (tmp_path / "run" / "report").exists()


@pytest.mark.slow
def test_a_sweep_of_one_run_has_the_figures_of_the_paper(make_run, make_curve, tmp_path):
    curves = [make_curve("unseen", "digits")]
    make_run(tmp_path / "sweep" / "run", evaluations={50: curves, 100: curves})
    assert main(["report", str(tmp_path / "sweep"), "--out", str(tmp_path / "out")]) == 0
    assert "loss_over_steps.png" in links((tmp_path / "out" / "index.html").read_text())


@pytest.mark.slow
def test_the_same_runs_give_the_same_report(make_run, tmp_path):
    make_run(tmp_path / "run", ended=None)
    reports = []
    for out in (tmp_path / "one", tmp_path / "other"):
        assert main(["report", str(tmp_path / "run"), "--out", str(out)]) == 0
        # An SVG names its clip paths by where they lie in memory.
        reports.append({path.name: path.read_bytes() for path in out.iterdir() if path.suffix != ".svg"})
    assert reports[0] == reports[1]


@pytest.mark.slow
def test_figures_of_the_paper_are_beside_its_values(make_run, make_curve, tmp_path):
    for num_tasks, unseen in ((16, 0.1), (2**14, 0.7)):
        curves = [
            make_curve("seen", "mnist"),
            make_curve("unseen", "mnist", last=unseen),
            make_curve("unseen", "kmnist"),
        ]
        run_info = {"num_tasks": num_tasks, "base_dataset": {"name": "mnist"}, "evaluations": {50: curves, 100: curves}}
        make_run(tmp_path / str(num_tasks), diagnostics_period=None, **run_info)
    assert main(["report", str(tmp_path)]) == 0
    out = tmp_path / "report"
    page = (out / "index.html").read_text()
    stems = {"within_sequence", "methods", "learning_phases", "loss_over_steps", "phases", "cost"}
    assert {f"{stem}.{ending}" for stem in stems for ending in ("png", "svg", "csv")} <= links(page)
    assert all((out / link).stat().st_size for link in links(page))
    drawn, _, lacking = page.partition("Not drawn, and what they need")
    assert "<h2>Figures 4, 11, 12: What is learned" in drawn and "<h2>Table 2: Accuracy of the last" in drawn
    assert "2^14 tasks at the fewest" in drawn and "at least 2^13 = 8,192" in drawn
    assert "70.0% [65.0%, 75.0%] (73.70%)" in drawn
    assert re.search("learn-to-learn with black-box models.</td>\\s*<td>supported", drawn)
    assert re.search("general learning-to-learn.</td>\\s*<td>not supported|not enough runs", drawn)
    assert "Figure 2: Accuracy by size of the model and number of tasks: Needs runs that are done" in lacking
    assert "Figure 14" in lacking and "Figure 14: " not in drawn
    pictures = {path.stem for path in out.glob("*.png")}
    assert pictures == {path.stem for path in out.glob("*.svg")} and "memorization" not in pictures


@pytest.mark.slow
def test_settings_that_nothing_is_compared_with_do_not_fill_the_page(make_run, tmp_path):
    for number in range(8):
        make_run(tmp_path / str(number), num_tasks=4**number, diagnostics_period=None, evaluations={})
    assert main(["report", str(tmp_path)]) == 0
    page = (tmp_path / "report" / "index.html").read_text()
    assert "Needs at least two interventions to compare." in page
    assert "0, 1, 2, 3, 4, 5 and 2 more: no evaluation" in page
    assert not list((tmp_path / "report").glob("cost*"))


def test_what_is_missing_is_said(make_run, tmp_path):
    folder = make_run(tmp_path / "a", diagnostics_period=None, evaluations={}, left_at=None)
    make_run(tmp_path / "b", diagnostics_period=None, evaluations={}, left_at=None)
    assert main(["report", str(tmp_path)]) == 0
    page = (tmp_path / "report" / "index.html").read_text()
    for words in ("No run has diagnostics", "No run has an evaluation", "by loss on unseen tasks", "a: no evaluation"):
        assert words in page
    assert main(["report", str(tmp_path)]) == 0
    assert (tmp_path / "report" / "index.html").read_text() == page  # a report is no run
    folder.run_info.unlink()
    assert main(["report", str(folder.path)]) == 0
    page = (folder.path / "report" / "index.html").read_text()
    assert "run.json does not say what the run is" in page and "a has no diagnostics" in page


@pytest.mark.parametrize("name", ["", "none"])
def test_no_run_is_one_line_and_exit_2(tmp_path, capsys, name):
    (tmp_path / "report").mkdir()
    assert main(["report", str(tmp_path / name)]) == 2
    captured = capsys.readouterr()
    assert captured.err.strip().startswith("gpicl: error: there is no") and captured.err.strip().count("\n") == 0
    assert captured.out == ""


def test_steps_after_the_drop_must_be_positive(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["report", str(tmp_path), "--after_drop", "0"])
    assert "must be a positive integer" in capsys.readouterr().err
