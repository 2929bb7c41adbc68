"""The order of rooms: a module imports from its own room and from rooms above it, and no imports go in a circle."""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "gpicl_flax"

# From what stands on its own to what stands on everything else. A room in a room comes with its path.
ROOMS = (
    "errors",
    "bindings",
    "config",
    "terminal",
    "runtime",
    "tasks",
    "models",
    "references",
    "records",
    "training",
    "evaluation",
    "runs",
    "learners",
    "sweep",
    "analysis",
    "launch",
    "cli",
    "__main__",
)
# Within a room that has rooms of its own, where one of them comes before another.
INNER_ROOMS = {"analysis": ("stats", "data", "figures", "report"), "tasks": ("projections", "datasets", "families")}
# Rooms whose modules no other one of these may import, although it stands above.
APART = {"analysis": ("learners", "sweep"), "launch": ("analysis", "learners"), "sweep": ("learners",)}


def modules() -> dict[str, pathlib.Path]:
    """The modules of the package by their names below it, such as 'records.lease'; '' is the package itself."""
    files = sorted(PACKAGE.rglob("*.py"))
    names = (".".join(file.relative_to(PACKAGE).with_suffix("").parts) for file in files)
    return {re.sub(r"\.?__init__$", "", name): file for name, file in zip(names, files, strict=True)}


MODULES = modules()


def imported(tree: ast.AST) -> set[str]:
    """The modules of the package that a module imports, anywhere in it."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole.removeprefix("gpicl_flax.") in MODULES else node.module)
    inside = (name for name in found if name == "gpicl_flax" or name.startswith("gpicl_flax."))
    return {name.removeprefix("gpicl_flax").removeprefix(".") for name in inside}


IMPORTS = {name: imported(ast.parse(file.read_text())) - {""} for name, file in MODULES.items()}


def test_the_top_of_the_package_holds_what_belongs_to_no_room():
    top = {path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"}
    assert {name for name in top if name.endswith(".py")} == {"__init__.py", "__main__.py", "config.py", "errors.py"}
    folders = {name for name in top if (PACKAGE / name).is_dir()}
    assert folders == set(ROOMS) - {"errors", "config", "__main__"}
    assert (PACKAGE / "py.typed").exists()


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_go_up_the_list_of_rooms(name):
    if name == "":  # the package itself names what users import from it, at its first use
        return
    room, *inner = name.split(".")
    for other in IMPORTS[name]:
        other_room, *other_inner = other.split(".")
        assert ROOMS.index(other_room) <= ROOMS.index(room), f"{name} imports {other}"
        assert other_room not in APART.get(room, ()), f"{name} imports {other}"
        order = INNER_ROOMS.get(room, ())
        if other_room == room and inner and inner[0] in order and other_inner and other_inner[0] in order:
            assert order.index(other_inner[0]) <= order.index(inner[0]), f"{name} imports {other}"


def test_no_imports_go_in_a_circle():
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path[path.index(name) :], name))
        if name not in done:
            for other in sorted(IMPORTS[name]):
                visit(other, (*path, name))
            done.add(name)

    for name in MODULES:
        visit(name, ())


def test_the_readme_shows_the_rooms_in_their_order():
    table = (ROOT / "README.md").read_text().partition("## The rooms")[2].partition("\n## ")[0]
    shown = re.findall(r"^\| `gpicl_flax/(\w+)/", table, re.MULTILINE)
    assert shown == [room for room in ROOMS if (PACKAGE / room).is_dir()]
