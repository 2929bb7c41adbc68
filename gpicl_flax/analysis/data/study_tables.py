"""The tables of a study: everything that a report shows of its runs, in a few small files in place of their folders.

This module defines their contents. `write_tables` writes them and `read_tables` reads them. A table without rows has no
file. study.json holds the number of rows of each table, and its columns that hold float32 (see `float32`).
"""

from etils import epath

from gpicl_flax.analysis.data import curves, evaluations
from gpicl_flax.records.run_folder import RunFolder

STUDY, RUNS = "study.json", "runs.csv"
EVALUATIONS, CURVES = "evaluations.csv", "curves.csv.gz"
LOSSES, DIAGNOSTICS, TELEMETRY = MEASURED = ("losses.csv.gz", "diagnostics.csv.gz", "telemetry.csv.gz")
FORMAT = 1  # the format of tables that this version reads

# The columns that a table has for any runs. Diagnostics also have a column for each quantity, and telemetry has one for
# each quantity of a tensor, where the tensor is empty for the whole model. runs.csv has the columns of `runs.read_all`,
# without `folder`.
KEY = ["run_id", "step"]
COLUMNS = {
    EVALUATIONS: [*KEY, "base_dataset", "tasks", *evaluations.NUMBERS],
    CURVES: ["run_id", "test_dataset", "tasks", "position", *curves.BY_POSITION],
    LOSSES: [*KEY, "loss", "loss_ema"],
    DIAGNOSTICS: KEY,
    TELEMETRY: [*KEY, "tensor"],
}
_TEXT = {
    "run_id", "ended", "stopped_early", "gaps", "model", "base_dataset", "optimizer", "inputs", "test_dataset", "tasks",
    "tensor", "targets_predicts", "targets_score", "targets_unit",
}  # fmt: skip
_TEXT_PREFIXES = ("label_", "binding_", "selection_")


def is_text(column: str) -> bool:
    """Returns whether a column holds text rather than numbers or other JSON: '10' is a label, not ten."""
    return column in _TEXT or column.startswith(_TEXT_PREFIXES)


def holds_tables(folder: epath.PathLike) -> bool:
    """Returns whether a folder holds the tables of a study."""
    return (RunFolder(folder).path / STUDY).exists()


def hint(folder: epath.PathLike) -> str:
    """Returns a clause for the error about a folder without runs, about the tables in it; '' if it has none."""
    path = RunFolder(folder).path
    if (path / RUNS).exists():
        return f". Its {RUNS} is not a study's without {STUDY}, which `gpicl report WORKDIR --tables FOLDER` writes"
    inside = (
        sorted(child.name for child in path.iterdir() if child.is_dir() and holds_tables(child))
        if path.is_dir()
        else []
    )
    if not inside:
        return ""
    return (
        f". It holds the tables of {len(inside)} {'study' if len(inside) == 1 else 'studies'}: give {path / inside[0]}"
    )
