"""How Sphinx builds the documentation; `make docs` calls it. Pages are Markdown, the API comes from docstrings."""

import argparse
import os
import pathlib
import re

import gpicl_flax
from gpicl_flax.cli import main

os.environ["COLUMNS"] = "100"  # of help texts

project, release = "gpicl_flax", gpicl_flax.__version__
extensions = [
    "myst_parser",
    "sphinx.ext.apidoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
html_theme, html_title = "furo", f"gpicl_flax {release}"
html_show_copyright = False  # LICENSE has it
highlight_language = "text"
python_maximum_signature_line_length = 100

apidoc_modules = [
    {
        "path": "../gpicl_flax",
        "destination": "reference/api",
        "separate_modules": True,
        "module_first": True,
        "automodule_options": {"members"},
    }
]
autodoc_default_options = {"ignore-module-all": True, "member-order": "bysource", "special-members": "__call__"}
autodoc_preserve_defaults = True
default_role = "py:obj"  # what stands in single backticks is code, and a link where it names something
# Names that share a description stay together: `train, test: the fixed splits`.
# What is returned has no type before a colon.
napoleon_custom_sections = [*((name, "params_style") for name in ("Attributes", "Args", "Columns")), "Returns"]


def setup(app) -> None:
    app.connect("builder-inited", _write_commands)
    app.connect("autodoc-process-docstring", _escape, priority=400)  # before Napoleon
    app.connect("autodoc-skip-member", _skip)


def _write_commands(app) -> None:
    """A page with the help of every command."""

    def walk(parser: argparse.ArgumentParser):
        yield f"## {parser.prog}\n\n```\n{parser.format_help()}```\n"
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for command in action.choices.values():
                    yield from walk(command)

    page = pathlib.Path(app.srcdir, "reference/commands.md")
    text = "\n".join(["# Commands\n", *walk(main.parser())])
    page.parent.mkdir(exist_ok=True)
    if not page.exists() or page.read_text() != text:
        page.write_text(text)


def _escape(app, what, name, obj, options, lines: list[str]) -> None:
    """Docstrings are plain text with code in backticks.

    A star or a bar elsewhere is itself, and `C.` begins no list.
    """
    lines[:] = ["".join(_escaped(part) for part in re.split(r"(`[^`]*`)", line)) for line in lines]
    lines[:] = [re.sub(r": ([A-Z]\.)( |$)", r": \\\1\2", line) for line in lines]


def _escaped(part: str) -> str:
    return part if part.startswith("`") else re.sub(r"([*|])", r"\\\1", part)


def _skip(app, what, name, obj, skip, options) -> bool | None:
    """Leaves out members that need no entry of their own.

    Fields of named tuples are described under Attributes. Scikit-learn gives methods such as set_score_request to every
    estimator; their descriptions point into its own documentation.
    """
    is_field = (getattr(obj, "__doc__", None) or "").startswith("Alias for field number")
    return True if is_field or re.fullmatch(r"set_\w+_request", name) else None
