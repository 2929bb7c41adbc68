"""Reading a run folder imports and calls nothing that it names, except what the caller trusts."""

import os
import subprocess
import sys

import gin
import pytest

from gpicl_flax.config import parse_bindings
from gpicl_flax.errors import UsageError
from gpicl_flax.learners import learner
from gpicl_flax.records.run_folder import RunFolder
from gpicl_flax.runs import saved_config
from gpicl_flax.runs.check import check_folder
from gpicl_flax.runs.evaluate import evaluate
from gpicl_flax.runs.inspection import inspect

calls = []


@gin.configurable
def not_of_the_package():
    """What a program of a user may have registered, for other purposes."""
    calls.append("called")
    return 1


ATTACKS = {
    "dynamic registration": "from __gin__ import dynamic_registration\nimport os\nimport gpicl_flax.runs.run\n"
    "os.system.command = 'touch PWNED'\ngpicl_flax.runs.run.Run.seed = @os.system()\n",
    "by an alias": "from __gin__ import dynamic_registration\nimport os as gpicl\nfrom gpicl_flax.runs import run\n"
    "gpicl.mkdir.path = 'PWNED'\nrun.Run.seed = @gpicl.mkdir()\n",
    "through the package": "from __gin__ import dynamic_registration\nimport gpicl_flax.records.run_folder\n"
    "import gpicl_flax.runs.run\ngpicl_flax.records.run_folder.os.mkdir.path = 'PWNED'\n"
    "gpicl_flax.runs.run.Run.seed = @gpicl_flax.records.run_folder.os.mkdir()\n",
    "a function of the package": "from __gin__ import dynamic_registration\nimport gpicl_flax.records.run_folder\n"
    "import gpicl_flax.runs.run\ngpicl_flax.records.run_folder.write_atomically.path = 'PWNED'\n"
    "gpicl_flax.runs.run.Run.seed = @gpicl_flax.records.run_folder.write_atomically()\n",
    "an import": "import makes_pwned\nRun.seed = 1\n",
    "a from import": "from makes_pwned import anything\nRun.seed = 1\n",
    "an include": "include 'makes_pwned.gin'\nRun.seed = 1\n",
    "a function of the caller": "Run.seed = @not_of_the_package()\n",
    "within a value": "Run.labels = {'a': [@not_of_the_package()]}\n",
    "by a constructor": "Run.seed = @x/gin.singleton()\nx/gin.singleton.constructor = @not_of_the_package\n",
    "by a macro": "Run.seed = %x\nx = @not_of_the_package()\n",
    "in a block": "Run:\n  seed = @not_of_the_package()\n",
}


@pytest.fixture
def evil(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "makes_pwned.py").write_text("import gin\nopen('PWNED', 'w')\nanything = gin\n")
    (tmp_path / "makes_pwned.gin").write_text("import makes_pwned\n")
    (tmp_path / "evil").mkdir()
    calls.clear()
    return RunFolder(tmp_path / "evil")


def resolve(folder, modules=()):
    return saved_config.resolve(saved_config.read(folder), str(folder.config), modules)


@pytest.mark.parametrize("read", [inspect, evaluate, lambda folder: learner.load(folder.path)])
@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_is_imported_or_called(evil, attack, read, finished):
    evil.config.write_text(ATTACKS[attack])
    evil.run_info.write_bytes(finished.run_info.read_bytes())
    os.symlink(finished.checkpoints, evil.checkpoints)
    with pytest.raises(UsageError) as raised:
        read(evil)
    assert len(str(raised.value)) < 400 and "\n" not in str(raised.value)
    assert not os.path.exists("PWNED") and not calls and "makes_pwned" not in sys.modules


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_is_imported_where_a_folder_is_only_compared(evil, attack):
    evil.config.write_text(ATTACKS[attack])
    with pytest.raises(UsageError):
        check_folder(parse_bindings("Run.seed = 2"), evil)
    assert not os.path.exists("PWNED") and not calls


def test_bindings_that_name_nothing_foreign_are_read(evil):
    text = "Run.model = @LSTM()\nRun.seed = %s\nLSTM.hidden_size = 8\ns = 3\n"
    evil.config.write_text(text)
    assert resolve(evil).seed == 3


MODEL = """
import dataclasses, os
import gin
from gpicl_flax.models import LSTM
from os import mkdir
{decorator}
class Mine(LSTM):
    size: int = 3
"""


@pytest.fixture
def own_model(evil, monkeypatch, request):
    """A module with a model of a user's own, which is not imported yet."""
    name = f"own_model_{request.node.nodeid.__hash__() & 0xFFFFFF}"

    def make(decorator="@gin.configurable"):
        (evil.path.parent / f"{name}.py").write_text(MODEL.format(decorator=decorator))
        return name

    yield make
    sys.modules.pop(name, None)


def test_a_module_is_imported_only_if_it_is_trusted(evil, own_model):
    name = own_model()
    evil.config.write_text(f"import {name}\nRun.model = @{name}.Mine()\n{name}.Mine.size = 5\n")
    with pytest.raises(UsageError, match=f"needs the module {name}.*--trust_imports {name}"):
        resolve(evil)
    assert name not in sys.modules
    run = resolve(evil, [name])
    assert type(run.model).__name__ == "Mine" and run.model.size == 5
    assert resolve(evil).model == run.model  # it is imported now


def test_with_dynamic_registration_only_what_a_trusted_module_defines_can_be_called(evil, own_model):
    name = own_model(decorator="")
    head = f"from __gin__ import dynamic_registration\nimport {name} as own\nfrom gpicl_flax.runs import run\n"
    evil.config.write_text(f"{head}run.Run.model = @own.Mine()\nown.Mine.size = 5\n")
    with pytest.raises(UsageError, match=f"--trust_imports {name}"):
        resolve(evil)
    run = resolve(evil, [name])
    assert type(run.model).__name__ == "Mine" and run.model.size == 5
    for what in ("mkdir", "os.mkdir"):
        evil.config.write_text(f"{head}run.Run.seed = @own.{what}()\nown.{what}.path = 'PWNED'\n")
        with pytest.raises(UsageError):
            resolve(evil, [name])
    assert not os.path.exists("PWNED")


def test_a_module_that_fails_says_so(evil, own_model):
    name = own_model(decorator="1 / 0")
    evil.config.write_text(f"import {name}\nRun.seed = 1\n")
    with pytest.raises(UsageError, match=f"the module {name} cannot be imported"):
        resolve(evil, [name])


DAMAGED = [
    "",
    "# nothing\n",
    "Run.seed = \n",
    "Run.seed = [[[",
    "\0",
    "Run.seed = " + "[" * 5000,
    "a = {[]: 1}",
    "a = " + "9" * 5000,
]


@pytest.mark.parametrize("text", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_configuration_is_named(evil, text):
    evil.config.write_text(text)
    with pytest.raises(UsageError, match=r"config\.gin is damaged"):
        inspect(evil)


def test_the_command_refuses_in_one_line(evil):
    evil.config.write_text(ATTACKS["dynamic registration"])
    command = [sys.executable, "-m", "gpicl_flax", "inspect", "evil"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=evil.path.parent)
    assert done.returncode == 2 and done.stdout == "" and not os.path.exists("PWNED")
    assert done.stderr.strip().startswith("gpicl: error: ") and done.stderr.strip().count("\n") == 0
