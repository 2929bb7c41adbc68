"""The notebooks, as they are committed: `make test-colabs` runs them."""

import json
import pathlib
import re

import pytest

from gpicl_flax.config import parse
from gpicl_flax.runs.run import Run
from gpicl_flax.sweep import grid

ROOT = pathlib.Path(__file__).parents[1]
NAMES = ("analysis", "checkpoint", "quickstart")
URL = re.search(r'^    url="(.+)",$', (ROOT / "setup.py").read_text(), re.M)[1]


@pytest.fixture(params=NAMES)
def notebook(request):
    """Its name, and its contents."""
    return request.param, json.loads((ROOT / f"colabs/{request.param}.ipynb").read_text())


def badge(name):
    """The link that opens a notebook of the main branch in Colab, with its picture."""
    opens = URL.replace("https://github.com", "https://colab.research.google.com/github")
    picture = "![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)"
    return f"[{picture}]({opens}/blob/main/colabs/{name}.ipynb)"


def source(notebook, kind):
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == kind]


def test_these_are_all():
    assert sorted(path.stem for path in (ROOT / "colabs").iterdir()) == list(NAMES)


def test_a_notebook_has_the_format_and_holds_no_output(notebook):
    _, contents = notebook
    assert contents["nbformat"] == 4 and contents["nbformat_minor"] >= 5
    assert contents["metadata"]["kernelspec"]["name"] == "python3"
    ids = [cell["id"] for cell in contents["cells"]]
    assert len(set(ids)) == len(ids) and all(re.fullmatch(r"[\w-]{1,64}", name) for name in ids)
    for cell in contents["cells"]:
        code = {"outputs", "execution_count"} if cell["cell_type"] == "code" else set()
        assert cell.keys() == {"cell_type", "id", "metadata", "source"} | code
        assert cell["cell_type"] in ("code", "markdown") and all(isinstance(line, str) for line in cell["source"])
        assert not cell.get("outputs") and cell.get("execution_count") is None


def test_it_begins_with_a_title_and_a_badge_that_opens_it(notebook):
    name, contents = notebook
    first = source(contents, "markdown")[0]
    assert contents["cells"][0]["cell_type"] == "markdown" and first.startswith("# ") and badge(name) in first


def test_it_installs_only_what_is_missing_and_takes_a_folder(notebook):
    _, contents = notebook
    install, parameters, login = source(contents, "code")[:3]
    assert 'if importlib.util.find_spec("gpicl_flax") is None:\n    %pip install' in install
    assert f'"gpicl_flax[colabs] @ git+{URL}"' in install
    assert re.search(r'^WORKDIR = "[\w/]*"  # @param \{type:"string"\}$', parameters, re.M)
    assert 'WORKDIR.startswith("gs://")' in login and "authenticate_user()" in login


def test_python_in_it_compiles_and_its_gin_files_exist(notebook):
    _, contents = notebook
    for text in source(contents, "code"):
        compile(re.sub(r"^( *)%pip .*$", r"\1pass", text, flags=re.M), "cell", "exec")
        for file in re.findall(r'"(gin/[\w/]+\.gin)"', text):
            parse([file], [])


def test_the_small_sweep_takes_the_steps_that_its_notebook_binds():
    points = grid.points(parse(["gin/small_sweep.gin"], ["Training.steps = 20"]))
    assert {point.config.resolve(Run)[0].training.steps for point in points} == {20}


def test_there_is_one_address_of_the_repository():
    texts = [(ROOT / f"colabs/{name}.ipynb").read_text() for name in NAMES]
    texts += [(ROOT / page).read_text() for page in ("README.md", "docs/index.md")]
    found = re.findall(r"(?:github\.com|colab\.research\.google\.com/github)/([\w-]+/\w+)", "\n".join(texts))
    assert set(found) == {URL.removeprefix("https://github.com/")}


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_pages_have_the_badge_of_each(page):
    text = (ROOT / page).read_text()
    for name in NAMES:
        assert badge(name) in text
