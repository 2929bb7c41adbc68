"""Which runs are repetitions of each other, which interventions are compared, and in which panel of a figure."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from gpicl_flax.analysis import survival
from gpicl_flax.analysis.survival import Lengths

BASELINE = "paper"  # the intervention that leaves the paper's setting as it is


@dataclasses.dataclass(frozen=True)
class Rule:
    """How the length of a plateau is told: its columns in a `runs.table`, and its name in words."""

    name: str
    steps: str
    left: str
    words: str

    def known(self, table: pd.DataFrame) -> pd.DataFrame:
        """The runs whose plateau has a length."""
        return table[table[self.steps].notna() & table[self.left].notna()]

    def lengths(self, table: pd.DataFrame) -> Lengths:
        """The lengths of the plateaus of runs that all have one."""
        return Lengths(table[self.steps].to_numpy(float), table[self.left].to_numpy(bool))


BY_TRAINING_LOSS = Rule("training", "plateau_steps", "plateau_left", "training loss")
BY_UNSEEN_TASKS = Rule("unseen", "unseen_plateau_steps", "unseen_plateau_left", "loss on unseen tasks")
RULES = (BY_TRAINING_LOSS, BY_UNSEEN_TASKS)


def grouped(table: pd.DataFrame) -> pd.DataFrame:
    """A `runs.table` with two more columns, which are missing for runs whose facts are.

    intervention: the label of that axis; for runs without it the model, with its number of parameters where there are several.
    panel: the setting in which interventions are compared: base dataset, size of the model and what other axes of labels
      there are, as far as they vary; as well as the number of tasks and the bias, where they vary among runs that are the
      same otherwise. Runs of one panel and intervention differ in their seeds.
    """
    table = table.copy()
    table["intervention"] = _interventions(table)
    table["panel"] = panels(table)
    for fact, text in (("num_tasks", "{} tasks"), ("permute_labels_prob", "p = {}")):
        if (table.groupby(["panel", "intervention"])[fact].nunique() > 1).any():
            known = table["panel"].notna() & table[fact].notna()
            values = table.loc[known, fact].map(lambda value, text=text: text.format(number(value)))
            table.loc[known, "panel"] = table.loc[known, "panel"] + ", " + values
    return table


def panels(table: pd.DataFrame, without: Sequence[str] = ()) -> pd.Series:
    """The settings of the runs by their base dataset and labels, but for the columns in `without`."""
    dataset = _label(table, "dataset").fillna(table["base_dataset"])
    others = [
        name
        for name in table.columns
        if name.startswith("label_")
        and name not in ("label_dataset", "label_intervention", "label_seed", *without)
        and table[name].nunique() > 1
    ]
    titles = dataset
    for name in others:
        axis = "" if name == "label_model" else f"{name.removeprefix('label_')} "
        titles = titles + (", " + axis + table[name]).fillna("")
    return titles


def _interventions(table: pd.DataFrame) -> pd.Series:
    models = table["model"].astype(object)
    sizes = table.groupby("model")["parameters"].transform("nunique")
    several = (sizes > 1) & table["parameters"].notna()
    models[several] = models[several] + table.loc[several, "parameters"].map(lambda n: f", {int(n):,} parameters")
    return _label(table, "intervention").fillna(models)


def _label(table: pd.DataFrame, axis: str) -> pd.Series:
    return table.get(f"label_{axis}", pd.Series(None, index=table.index, dtype=object)).astype(object)


def number(value: float) -> str:
    """A number of tasks or a probability in few characters: 2^13, 1,000, 0.1, unbounded."""
    if math.isinf(value):
        return "unbounded"
    if value >= 64 and math.log2(value).is_integer():
        return f"2^{int(math.log2(value))}"
    return f"{int(value):,}" if float(value).is_integer() else f"{value:g}"


def in_order(table: pd.DataFrame) -> list[str]:
    """The interventions of a grouped table: the baseline, then the others from the shortest plateau to the longest."""
    keys = {}
    for name, runs in table.groupby("intervention"):
        known = BY_TRAINING_LOSS.known(runs)
        median = survival.median(BY_TRAINING_LOSS.lengths(known)).steps if len(known) else np.inf
        keys[name] = (name != BASELINE, median, known["plateau_steps"].mean() if len(known) else np.inf, name)
    return sorted(keys, key=keys.get)


def by_panel(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The panels of a grouped table, by name, each with its runs."""
    return list(table.groupby("panel"))
