"""The documentation works: Python blocks run, commands fit the command line, and all that it names exists."""

import importlib
import os
import pathlib
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
import sklearn.datasets

from gpicl_flax import config
from gpicl_flax.cli.main import main, parser
from gpicl_flax.runs import model_zoo, scale
from gpicl_flax.sweep import listing, stages  # noqa: F401  (listing brings what gin files name)

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [str(path.relative_to(ROOT)) for path in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])]
FENCE = re.compile(r"^```(\S*)\n(.*?)^```$", re.M | re.S)
FILE_NAME = re.compile(r"# (\w+\.(?:py|gin))\n")  # the first line of a block that is a file
PROGRAMS = ("gpicl ", "python -m gpicl_flax ")
SWEEP_BINDINGS = scale.ALL


def blocks(page):
    """Its fenced blocks: language and text."""
    return FENCE.findall((ROOT / page).read_text())


def spans(page):
    """What stands in backticks in its prose."""
    return re.findall(r"`([^`\n]+)`", FENCE.sub("", (ROOT / page).read_text()))


def commands(text):
    """The arguments of the `gpicl` lines of a block."""
    lines = (line.removeprefix("$ ") for line in text.replace("\\\n", " ").splitlines())
    for line in lines:
        for program in PROGRAMS:
            if line.startswith(program):
                yield shlex.split(line.removeprefix(program), comments=True)


def pages_with(find):
    found = {page: list(find(page)) for page in PAGES}
    return [pytest.param(values, id=page) for page, values in found.items() if values]


def test_all_pages_are_looked_at():
    """The pages that the site and the README list are those that the tests below check."""
    trees = re.findall(r"^```{toctree}\n(.*?)^```", (ROOT / "docs/index.md").read_text(), re.M | re.S)
    listed = {f"docs/{line}.md" for tree in trees for line in tree.splitlines() if re.fullmatch(r"\w+", line)}
    assert listed | {"docs/index.md"} == {page for page in PAGES if page.startswith("docs/")}
    linked = re.findall(r"\]\((docs/\w+\.md)", (ROOT / "README.md").read_text())
    assert listed == set(linked)
    assert {"README.md", "CONTRIBUTING.md", "CHANGELOG.md"} <= set(PAGES)
    for find in (spans, gin_names, named_files, lambda page: [c for _, text in blocks(page) for c in commands(text)]):
        assert len(pages_with(find)) > len(PAGES) / 4


def test_every_model_has_a_section_with_its_state_and_its_source():
    text = (ROOT / "docs/models.md").read_text()
    sections = {part.split("\n")[0]: part for part in text.split("\n## ")}
    table = {name for line in sections["# Models"].split("\n") for name in re.findall(r"`@(\w+)\(\)`", line[:40])}
    for cls in model_zoo.MODELS:
        assert cls.__name__ in table
        assert "- **State**: " in sections[cls.__name__] and "- **Source**: " in sections[cls.__name__]


@pytest.mark.parametrize("lines", pages_with(lambda page: [c for _, text in blocks(page) for c in commands(text)]))
def test_command_lines_fit_the_command_line(lines):
    for line in lines:
        arguments = parser().parse_args(line)
        files = getattr(arguments, "gin_file", None) or []
        if all((ROOT / file).exists() for file in files):  # others are of the page's own
            config.parse(files, getattr(arguments, "gin_bindings", []))


@pytest.mark.parametrize("found", pages_with(lambda page: [s for s in spans(page) if s.startswith(("gpicl ", "--"))]))
def test_commands_and_options_in_prose_exist(found):
    parsers = dict(subparsers(parser()))
    options = {option for parser in parsers.values() for option in parser._option_string_actions}
    for text in found:
        if text.startswith("gpicl "):
            words = text.split()[1:]
            name = " ".join(words[:2]) if " ".join(words[:2]) in parsers else words[0]
            assert name in parsers, text
            for word in words:
                assert not word.startswith("--") or word in parsers[name]._option_string_actions, text
        elif re.fullmatch(r"--[a-z_]+", text.split()[0]):  # those of gcloud have hyphens
            assert text.split()[0] in options, text


def subparsers(parser, prefix=""):
    for action in parser._actions:
        for name, command in (action.choices or {}).items() if isinstance(action.choices, dict) else ():
            yield prefix + name, command
            yield from subparsers(command, f"{prefix}{name} ")


def gin_names(page):
    """Names such as Training.steps, and adam.eps where it is bound, in code that is not Python."""
    text = (ROOT / page).read_text()
    code = [*spans(page), *(block for language, block in blocks(page) if language != "python")]
    found = re.findall(r"(?<![\w./@%:-])([A-Z]\w*\.(?!md\b)[a-z_]\w*)\b(?![(.])", "\n".join(code))
    found += re.findall(r"(?<![\w./@%:-])([a-z]\w*\.[a-z_]\w*) = ", "\n".join(code))
    own = re.findall(r"^class (\w+)", text, re.M)
    return [name for name in dict.fromkeys(found) if name.split(".")[0] not in own]


@pytest.mark.parametrize("names", pages_with(gin_names))
def test_gin_names_exist(names):
    for name in names:
        if name not in SWEEP_BINDINGS:
            config.parse_text(f"{name} = None")  # raises if there is no such configurable, or it has no such parameter


@pytest.mark.parametrize(
    "texts", pages_with(lambda page: [t for _, t in blocks(page) if t.startswith("include 'gin/")])
)
def test_gin_blocks_are_gin(texts):
    for text in texts:
        assert stages.points_or_run(config.parse_text(text))


def named_files(page):
    text = (ROOT / page).read_text()
    rooms = "gpicl_flax|tests|docs|launch|benchmarks|gin"
    found = [span for span in spans(page) if re.fullmatch(rf"(?:{rooms})/[\w./]*", span)]
    found += re.findall(r"(?<![\w/])gin/[\w./]+\.gin", text)
    links = re.findall(r"\]\(([^)#\s]+)", FENCE.sub("", text))
    local = [link for link in links if "://" not in link]
    return [ROOT / name for name in found] + [(ROOT / page).parent / link for link in local]


@pytest.mark.parametrize("files", pages_with(named_files))
def test_files_that_are_named_or_linked_exist(files):
    for file in files:
        assert file.exists(), file


@pytest.mark.parametrize(
    "targets", pages_with(lambda page: re.findall(r"(?:^|[`$] ?)make ([a-z-]+)", (ROOT / page).read_text(), re.M))
)
def test_make_targets_exist(targets):
    makefile = (ROOT / "Makefile").read_text()
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.M), target


LONG = "docs/extending.md"  # trains models of its own
WITH_PYTHON = [page for page in PAGES if any(language == "python" for language, _ in blocks(page))]


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=[pytest.mark.slow] * (page == LONG)) for page in WITH_PYTHON]
)
def test_python_blocks_run(page, tmp_path, monkeypatch, capsys):
    """All blocks of a page, in one folder and in their order.

    Where a page has files of its own, its commands run as well.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    namespace = {"__name__": "docs"}
    has_files = any(FILE_NAME.match(text) for _, text in blocks(page))
    for language, text in blocks(page):
        if name := FILE_NAME.match(text):
            (tmp_path / name[1]).write_text(text)
            importlib.invalidate_caches()
        elif language == "python":
            exec(compile(text, page, "exec"), namespace)
        elif has_files:
            for arguments in commands(text):
                if "--workdir" in arguments:
                    arguments += [
                        "--gin_bindings",
                        "MeshShape.data = 1",
                    ]  # of the eight devices, which saves compilation
                assert main(arguments) == 0, capsys.readouterr().err


NOT_HERE = (
    ["datasets", "prepare"],
    ["datasets", "embed"],
    ["datasets", "needed"],
)  # they download, or need what that brings
AS_THEY_STAND = ("README.md", "docs/runs.md", "docs/data.md", "docs/sweeps.md")


@pytest.mark.slow
def test_commands_run_as_they_stand(tmp_path):
    """Those of a user's first hour, in one folder and their order, with the files that they name."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(256, size=(100, 8, 8), dtype=np.uint8), np.arange(100) % 10
    np.savez(
        tmp_path / "data.npz",
        **{"train_images": images, "train_labels": labels, "test_images": images[:50]},
        test_labels=labels[:50],
    )
    iris = sklearn.datasets.load_iris(as_frame=True).frame.sample(frac=1, random_state=0)
    iris = iris.rename(columns={"target": "species"})
    iris[:60].to_csv(tmp_path / "labelled.csv", index=False)
    iris[60:].drop(columns="species").to_csv(tmp_path / "new.csv", index=False)
    cache = {name: str(tmp_path / name) for name in ("TFDS_DATA_DIR", "XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR")}
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"} | cache
    lines = [line for page in AS_THEY_STAND for _, text in blocks(page) for line in commands(text)]
    for line in dict.fromkeys(map(tuple, lines)):
        if list(line[:2]) not in NOT_HERE:
            share = ["--shard", "1/5"] if line[0] == "sweep" and "--workdir" in line else []  # of many minutes
            command = [sys.executable, "-m", "gpicl_flax", *line, *share]
            result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
            assert result.returncode == 0, f"{shlex.join(line)}\n{result.stderr}"
    assert (tmp_path / "runs/state_size/report/index.html").exists()


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("sphinx", reason="needs the extra `docs`")
    options = ["--quiet", "--fail-on-warning", "--keep-going"]
    command = [sys.executable, "-m", "sphinx", *options, "docs", str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    api = (tmp_path / "reference/api/gpicl_flax.models.transformer.html").read_text()
    assert "matching_gain" in api and "gpicl inspect" in (tmp_path / "reference/commands.html").read_text()
