"""Commands on damaged run folders: the right result, or one line that names the file, with exit code 1 or 2."""

import os

import numpy as np
import pytest

from gpicl_flax.cli.main import main
from tests import damages
from tests.storm.conftest import results

pytestmark = pytest.mark.storm
STEPS = ["--gin_bindings", "Training.steps = 30"]
EXAMPLES = 400


class Crash(BaseException):
    """In place of a kill."""


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    (folder / "context.csv").write_text("a,b,label\n1,10,cat\n2,11,cat\n8,1,dog\n9,2,dog\n")
    (folder / "queries.csv").write_text("a,b\n1.2,10\n8.8,1\n")
    return ["--context", str(folder / "context.csv"), "--queries", str(folder / "queries.csv"), "--members", "1"]


@pytest.fixture(scope="module")
def commands(options, context):
    def of(folder):
        return {
            "inspect": ["inspect", folder],
            "inspect --json": ["inspect", "--json", folder],
            "evaluate": ["evaluate", folder],
            "export": ["export", folder, f"{folder}_exported"],
            "predict": ["predict", "--checkpoint", folder, *context],
            "report": ["report", folder, "--out", f"{folder}_report"],
            "tables": ["report", folder, "--tables", f"{folder}_tables"],
            "train": ["train", "--workdir", folder, "--quiet", *options, *STEPS],
            "train, lost log": ["train", "--workdir", folder, "--quiet", *options, *STEPS, "--accept_lost_log"],
        }

    return of


@pytest.fixture(scope="module")
def states(commands, tmp_path_factory):
    """A finished run and a half-finished one."""
    folder = tmp_path_factory.mktemp("states")
    finished, half = str(folder / "finished"), str(folder / "half_finished")
    assert main(commands(finished)["train"]) == 0
    with pytest.MonkeyPatch.context() as patch:
        from gpicl_flax.training import run_log

        add = run_log.RunLog.add

        def crash(self, step, metrics, measured):
            if step == 24:
                raise Crash
            return add(self, step, metrics, measured)

        patch.setattr(run_log.RunLog, "add", crash)
        with pytest.raises(Crash):
            main(commands(half)["train"])
    return {"finished": finished, "half_finished": half}


def test_commands(states, commands, capfd, tmp_path):
    rng, outcomes = np.random.default_rng(0), {}
    expected = results(states["finished"])
    for number in range(EXAMPLES):
        state = ["finished", "half_finished"][rng.integers(2)]
        folder = damages.copy(states[state], str(tmp_path / str(number)))
        names = damages.files(folder)
        if rng.random() < 0.7:  # there are many more files of arrays than others
            names = [name for name in names if "state" not in name]
        name, kind = names[rng.integers(len(names))], damages.KINDS[rng.integers(len(damages.KINDS))]
        all_commands = commands(folder)
        command = list(all_commands)[rng.integers(len(all_commands))]
        damages.damage(os.path.join(folder, name), kind, rng)
        capfd.readouterr()
        what = (number, state, name, kind, command)
        try:
            code = main(all_commands[command])
        except BaseException as error:
            raise AssertionError(what) from error
        lines = [line for line in capfd.readouterr().err.split("\n") if line]
        assert not any("Traceback" in line for line in lines), (what, lines)
        assert code in (0, 1, 2), what
        if code:
            last = lines[-1]
            assert last.startswith("gpicl: ") and len(last) < 500, (what, lines)
            assert os.path.basename(folder) in last, (what, lines)
        elif command == "train" and state == "half_finished":
            assert results(folder) == expected, what
        outcomes[command, code] = outcomes.get((command, code), 0) + 1
    print("damages, by command and exit code:", {f"{key[0]}: {key[1]}": n for key, n in sorted(outcomes.items())})
