"""Decides which runs are repetitions of each other, which interventions are compared, and in which panel."""

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any

import pandas as pd

from gpicl_flax.analysis.data.frames import column_names, group_by
from gpicl_flax.analysis.stats import survival
from gpicl_flax.records.lengths import Lengths

BASELINE = "paper"  # the intervention that leaves the paper's setting as it is

# Bindings that do not define a setting: those that repetitions differ in, those with their own column, and those that
# do not change results.
_NO_CONDITION = ("Run.seed", "Run.labels", "Run.selection", "Loader.", "MeshShape.", "Training.telemetry", "Telemetry.")
_NO_SETTING = (*_NO_CONDITION, "TaskDistribution.permute_labels_prob")
_NUM_TASKS = ".num_tasks"  # the end of the name in every task family

# Columns that define a condition, before any binding, and the words around their values.
_WORDS = {
    "model": ("", ""),
    "base_dataset": ("trained on ", ""),
    "inputs": ("", ""),
    "num_tasks": ("", " tasks"),
    "task_batch_size": ("batch size ", ""),
    "permute_labels_prob": ("p = ", ""),
    "sequence_length": ("sequences of ", ""),
}


@dataclasses.dataclass(frozen=True)
class Rule:
    """A rule for the length of a plateau.

    Attributes:
      name: its name in the names of files.
      steps: the column of a table of runs with the length in steps.
      left: the column that says whether the plateau was left.
      words: the name in words.
      caveat: a sentence about what to beware of, or ''.
    """

    name: str
    steps: str
    left: str
    words: str
    caveat: str = ""

    def known(self, table: pd.DataFrame) -> pd.DataFrame:
        """Returns the runs whose plateau has a length."""
        return table[table[self.steps].notna() & table[self.left].notna()]

    def lengths(self, table: pd.DataFrame) -> Lengths:
        """Returns the plateau lengths of runs that all have one."""
        return Lengths(table[self.steps].to_numpy(float), table[self.left].to_numpy(bool))


BY_TRAINING_LOSS = Rule(
    "training",
    "plateau_steps",
    "plateau_left",
    "training loss",
    " That loss also falls without any learning-to-learn where a bias or a curriculum makes the training tasks easier, "
    "or where they are memorised; interventions that do this can be compared by the loss on unseen tasks only.",
)
BY_UNSEEN_TASKS = Rule("unseen", "unseen_plateau_steps", "unseen_plateau_left", "loss on unseen tasks")
RULES = (BY_UNSEEN_TASKS, BY_TRAINING_LOSS)  # the first also compares runs that train on other tasks


def rule_of(table: pd.DataFrame) -> Rule:
    """Returns the first of RULES by which at least one run of a table has a length."""
    return next((rule for rule in RULES if len(rule.known(table))), BY_TRAINING_LOSS)


def grouped(table: pd.DataFrame) -> pd.DataFrame:
    """Returns a table of runs with three more columns, which are missing for runs without a run.json.

    Columns:
      intervention: the label of that axis. For runs without it: the model, with its number of parameters where there
        are several.
      setting: the base dataset, the size of the model and the labels of other axes, as far as they vary. It also names
        the bias and any other binding that varies among runs that are otherwise the same, except the number of tasks.
      panel: the group in which interventions are compared: the setting, and the number of tasks where that varies among
        runs that are otherwise the same. Runs of one panel and intervention differ in their seeds.
    """
    table = table.copy()
    table["intervention"] = _interventions(table)
    table["setting"] = _settings(table)
    kinds = table["intervention"]
    table["setting"] = _divided(table["setting"], "p = " + _numbers(table["permute_labels_prob"]), kinds)
    for name in table.columns:
        if name.endswith(_NUM_TASKS):
            continue
        if name.startswith("binding_") and not name.removeprefix("binding_").startswith(_NO_SETTING):
            values = name.rpartition(".")[2] + " = " + table[name]
            table["setting"] = _divided(table["setting"], values, kinds)
    table["panel"] = _divided(table["setting"], _numbers(table["num_tasks"]) + " tasks", kinds)
    return table


def conditions(table: pd.DataFrame, axes: Sequence[str], *, across_tasks: bool = False) -> pd.Series:
    """Returns in words what distinguishes runs that have the same values in the columns `axes`, besides their seeds.

    Runs with the same values there and the same condition are repetitions of each other. A condition names only what
    varies among runs that would otherwise pass for repetitions; it is '' if nothing does.

    Args:
      table: the runs.
      axes: the columns whose values are known.
      across_tasks: leave the number of tasks out of the condition. Runs of one condition then differ in nothing but it,
        and can be compared by it.
    """
    keys = [table[axis].astype(str) for axis in axes]
    labels = [x for x in column_names(table) if x.startswith("label_")]
    unnamed = []
    if across_tasks:
        names = [x for x in labels if x != "label_intervention" and _names_tasks(table, x)]
        unnamed = ["num_tasks", *(x for x in column_names(table) if x.endswith(_NUM_TASKS)), *names]
    condition = pd.Series("", index=table.index, dtype=object)
    for column in ("label_intervention", *labels, *_WORDS):
        if column in table and column not in (*axes, *unnamed, "label_seed") and not _is_note(table, column):
            before, after = _WORDS.get(column, ("", ""))
            values = _numbers(table[column]) if pd.api.types.is_numeric_dtype(table[column]) else table[column]
            condition = _divided(condition, before + values.astype(object) + after, *keys)
    for column in table.columns.difference(unnamed, sort=False):
        if column.startswith("binding_") and not column.removeprefix("binding_").startswith(_NO_CONDITION):
            values = column.rpartition(".")[2] + " = " + table[column]
            condition = _divided(condition, values, *keys)
    return condition.str.removeprefix(", ")


def _settings(table: pd.DataFrame) -> pd.Series:
    titles = _label(table, "dataset").fillna(table["base_dataset"])
    for name in table.columns:
        if not name.startswith("label_") or name in ("label_dataset", "label_intervention", "label_seed"):
            continue
        if table[name].nunique() > 1 and not _names_tasks(table, name) and not _is_note(table, name):
            axis = "" if name == "label_model" else f"{name.removeprefix('label_')} "
            titles = titles + (", " + axis + table[name]).fillna("")
    return titles


def _is_note(table: pd.DataFrame, column: str) -> bool:
    """Returns whether a column holds labels that choose nothing: runs with equal bindings have several of them."""
    bindings = [x for x in column_names(table) if x.startswith("binding_")]
    bound = [x for x in bindings if not x.removeprefix("binding_").startswith(_NO_CONDITION)]
    if not bound or not column.startswith("label_"):
        return False
    return bool((table.groupby(bound, dropna=False)[column].nunique() > 1).any())


def _names_tasks(table: pd.DataFrame, name: str) -> bool:
    """Returns whether the labels in a column name the numbers of tasks, one for one."""
    pairs = table[[name, "num_tasks"]].drop_duplicates()
    return len(pairs) == pairs[name].nunique() == pairs["num_tasks"].nunique()


def _divided(texts: pd.Series, values: pd.Series, *keys: pd.Series) -> pd.Series:
    """Returns the texts, with the values added if they vary among runs with the same text and keys.

    A value is a text or missing.
    """
    if not (values.fillna("").groupby([texts, *keys]).nunique() > 1).any():
        return texts
    return texts + (", " + values).fillna("")


def _numbers(values: pd.Series) -> pd.Series:
    return values.map(number, na_action="ignore").astype(object)


def _interventions(table: pd.DataFrame) -> pd.Series:
    def in_words(parameters: Any) -> str:
        return f", {int(parameters):,} parameters"

    models = table["model"].astype(object)
    sizes = table.groupby("model")["parameters"].transform("nunique")
    several = (sizes > 1) & table["parameters"].notna()
    models[several] = models[several] + table.loc[several, "parameters"].map(in_words)
    return _label(table, "intervention").fillna(models)


def _label(table: pd.DataFrame, axis: str) -> pd.Series:
    return table.get(f"label_{axis}", pd.Series(None, index=table.index, dtype=object)).astype(object)


def number(value: float) -> str:
    """Returns a number of tasks or a probability in few characters: 2^13, 1,000, 0.1, unbounded."""
    if math.isinf(value):
        return "unbounded"
    if value >= 16 and math.log2(value).is_integer():
        return f"2^{int(math.log2(value))}"
    return f"{int(value):,}" if float(value).is_integer() else f"{value:g}"


def tasks(value: float) -> str:
    """Returns a number of tasks in words: 1 task, 2^13 tasks, unbounded tasks."""
    return f"{number(value)} {'task' if value == 1 else 'tasks'}"


def natural(text: str) -> list[tuple[str, float]]:
    """Returns a key that sorts texts by the numbers in them: size = 4 comes before size = 16."""
    return [(words, float(number or -1)) for words, number in re.findall(r"([^\d]*)(\d*)", text)]


def in_order(table: pd.DataFrame) -> list[str]:
    """Returns the interventions of a grouped table: the baseline, then the others by the length of their plateau."""
    rule = rule_of(table)
    keys: dict[str, Any] = {}
    for name, runs in group_by(table, "intervention"):
        known = rule.known(runs)
        median = survival.median(rule.lengths(known)).steps if len(known) else math.inf
        keys[name] = (name != BASELINE, median, known[rule.steps].mean() if len(known) else math.inf, name)
    return sorted(keys, key=lambda name: keys[name])


def by_panel(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Returns the panels of a grouped table with their runs, ordered by setting and number of tasks."""
    panels = group_by(table, "panel")
    return sorted(panels, key=lambda item: (item[1]["setting"].iloc[0], item[1]["num_tasks"].min(), item[0]))
