"""Nothing in the package executes or unpickles what it reads."""

import ast
import pathlib

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / "gpicl_flax"
EXECUTES = {"eval", "exec", "compile", "__import__"}
UNPICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "torch"}
FILES = sorted(PACKAGE.rglob("*.py"))


def calls(tree):
    """Yields the dotted name of each call, and the call."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_no_file_executes_or_unpickles_data(file):
    tree = ast.parse(file.read_text())
    imported = {
        alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    imported |= {(node.module or "").split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not imported & UNPICKLES
    for name, call in calls(tree):
        assert name not in EXECUTES, (name, call.lineno)
        if name in ("np.load", "numpy.load", "np.lib.format.read_array"):
            settings = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            assert settings.get("allow_pickle") == "False", call.lineno


def test_only_one_file_imports_modules_by_their_names():
    found = {
        str(file.relative_to(PACKAGE))
        for file in FILES
        for name, _ in calls(ast.parse(file.read_text()))
        if name.endswith("import_module")
    }
    # The modules of all figures, and one of a network that is chosen from a list, have names that no data can choose.
    assert found == {"runs/saved_config.py", "analysis/figures/registry.py", "tasks/datasets/encoders.py"}
