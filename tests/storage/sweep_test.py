"""A sweep on gs:// by two workers, and all that reads it afterwards, as from a disk."""

import ast
import json
import re

import pandas as pd
import pytest

from gpicl_flax.cli.main import main
from tests.storage.conftest import ROOT, below, gin_options, local_files, remote_files, results

pytestmark = pytest.mark.slow
POINTS = 4
GRID = ["sweep.grids = [{'Run.seed': [0, 1], 'LSTM.hidden_size': [8, 12]}]", "Training.steps = 800"]


@pytest.fixture
def study(start, options, tmp_path):
    """The same sweep in tmp_path/study, and by two workers in gs://bucket/study; the workers' output."""
    sweep = ["sweep", *options, *gin_options(GRID)[2:], "--workdir"]
    start(*sweep, str(tmp_path / "study")).succeed()
    workers = [start(*sweep, "gs://bucket/study") for _ in range(2)]
    for worker in workers:
        worker.succeed()
    return [worker.output for worker in workers]


def test_two_workers_and_their_readers(gcs, study, start, options, tmp_path, capsys):
    # Each point is trained once, and each worker sees how all of them ended.
    local, remote = local_files(tmp_path / "study"), remote_files(gcs, "study")
    run_ids = sorted({name.partition("/")[0] for name in local})
    assert len(run_ids) == POINTS == len({name.partition("/")[0] for name in remote})
    writes = [record["name"] for record in gcs.requests() if record["kind"] == "upload"]
    for run_id in run_ids:
        assert results(below(remote, run_id)) == results(below(local, run_id))
        assert writes.count(f"study/{run_id}/eval/step_00000800.json") == 1
        assert [name for name in remote if name.startswith(f"{run_id}/.claim/")] == [f"{run_id}/.claim/00000001.json"]
        assert sum(bool(re.search(rf"\] {run_id}$", output, re.M)) for output in study) == 1
        assert all(re.search(rf"\] {run_id}(: DONE|$)", output, re.M) for output in study), study

    # Reading it, here and there, gives the same.
    run_id = run_ids[0]
    outputs = {}
    for place in (str(tmp_path / "study"), "gs://bucket/study"):
        out = f"{place}_out"
        commands = (
            ["sweep", *options, *gin_options(GRID)[2:], "--workdir", place, "--status", "--json"],
            ["report", place, "--out", f"{out}/report"],
            ["report", place, "--tables", f"{out}/tables"],
            ["report", f"{out}/tables", "--out", f"{out}/report_of_tables"],
            ["export", f"{place}/{run_id}", f"{out}/learner"],
            ["inspect", f"{place}/{run_id}", "--json"],
            ["evaluate", f"{place}/{run_id}", "--num_sequences", "30"],
            ["evaluate", f"{out}/learner"],
        )
        outputs[place] = [without(place, run(capsys, *command)) for command in commands]
        outputs[place] += [without(place, text) for text in shown("analysis", place)]
        for notebook in ("checkpoint", "quickstart"):
            outputs[place] += [without(place, text) for text in shown(notebook, f"{place}/{run_id}")]
    here, there = outputs.values()
    assert len(here) > 15
    for one, other in zip(here, there, strict=True):
        assert one == other
    states = [json.loads(line)["state"] for line in there[0].splitlines()]
    assert states == POINTS * ["done"]
    made_here, made_there = local_files(tmp_path / "study_out"), remote_files(gcs, "study_out")
    assert made_here.keys() == made_there.keys() and len(made_here) > 20
    for name, data in made_here.items():
        other = made_there[name]
        if not name.endswith(".png"):
            data, other = (
                without(place, each.decode("latin-1")) for place, each in zip(outputs, (data, other), strict=True)
            )
        assert data == other, name
    local, remote = local_files(tmp_path / "study"), remote_files(gcs, "study")
    assert results(below(remote, run_id)) == results(below(local, run_id))  # with the second meta-test


def test_two_workers_choose_as_one_does_on_a_disk(gcs, start, options, tmp_path):
    bindings = [
        "sweep.grids = [{'LSTM.hidden_size': [8, 12], 'Run.seed': [0]}]", "Training.steps = 400",
        "sweep.select = {'adam.learning_rate': [1e-3, 1e-2]}", "sweep.select_seeds = 1",
    ]  # fmt: skip
    sweep = ["sweep", *options, *gin_options(bindings)[2:], "--workdir"]
    start(*sweep, str(tmp_path / "chosen")).succeed()
    for worker in [start(*sweep, "gs://bucket/chosen") for _ in range(2)]:
        worker.succeed()
    local, remote = local_files(tmp_path / "chosen"), remote_files(gcs, "chosen")
    run_ids = sorted({name.partition("/")[0] for name in local})
    assert len(run_ids) == 2 * 2 + 2 and sum(not run_id.startswith("select_") for run_id in run_ids) == 2
    assert {name.partition("/")[0] for name in remote} == {*run_ids}
    for run_id in run_ids:
        assert results(below(remote, run_id)) == results(below(local, run_id))


def run(capsys, *arguments):
    """The output of a command that succeeds, in this process, which has the programs already."""
    capsys.readouterr()
    assert main(list(arguments)) == 0
    return capsys.readouterr().out


def without(place, text):
    return text.replace(place, "PLACE")


def shown(notebook, workdir):
    """What the cells of a notebook show for a folder that holds its runs already."""
    contents = json.loads((ROOT / f"colabs/{notebook}.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in contents["cells"] if cell["cell_type"] == "code"]
    cells = [cell for cell in cells if "%pip" not in cell and "@param" not in cell and 'gpicl(["train"' not in cell]
    found = []
    names = {"WORKDIR": workdir, "BASE_DATASET": "digits", "SEQUENCES": 16, "SHOWN": 0, "STEPS": 1}
    names |= {"print": lambda *each, **_: found.extend(each), "display": lambda *each: found.extend(each)}
    for cell in cells:
        tree = ast.parse(cell)
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, notebook, "exec"), names)
        if last is not None:
            found.append(eval(compile(ast.Expression(last.value), notebook, "eval"), names))
    assert found
    return [text_of(each) for each in found if each is not None]


def text_of(thing):
    if isinstance(thing, pd.DataFrame):
        return thing.to_csv()
    return thing._repr_html_() if hasattr(thing, "_repr_html_") else str(thing)
