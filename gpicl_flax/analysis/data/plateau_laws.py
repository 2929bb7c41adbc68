"""The lengths of plateaus by batch size and number of tasks, and their power laws, in numbers and in words."""

import math
from typing import Any

import numpy as np
import pandas as pd

from gpicl_flax.analysis.data import groups
from gpicl_flax.analysis.data.frames import group_by
from gpicl_flax.analysis.data.groups import BY_TRAINING_LOSS, conditions
from gpicl_flax.analysis.data.study import Study
from gpicl_flax.analysis.stats import power_law, survival

_OPTIMISER = ["optimizer", "learning_rate", "eps"]
_LINE = ["condition", "optimiser", "num_tasks"]  # lines against the batch size
_ACROSS = ["condition", "optimiser", "task_batch_size"]  # lines against the number of tasks
_LAW = ["exponent", "exponent_low", "exponent_high", "coefficient", "scatter", "no_law"]
_BY_TASKS = [f"tasks_{name}" for name in _LAW]  # the same, against the number of tasks
_SUMS: dict[str, Any] = {"runs": "sum", "left": "sum"}


def numbers(study: Study) -> pd.DataFrame:
    """Returns a row for each condition, optimiser (in words), num_tasks (inf: unbounded) and task_batch_size.

    Further columns: the fields of `survival.Median` (median for its steps, inf if fewer than half have left), and the
    same in sequences seen, which is steps x batch size: tasks_seen, tasks_low, tasks_high, tasks_budget. Then the power
    law of all batch sizes of that condition, optimiser and num_tasks, `power_law.PowerLaw`: exponent with exponent_low
    and exponent_high (of the length in steps; in tasks seen each is larger by one), coefficient, scatter, and no_law:
    why there is none, or ''. The same with the prefix tasks_ is the power law of all bounded numbers of tasks, of that
    condition, optimiser and task_batch_size.
    """
    runs = BY_TRAINING_LOSS.known(study.table.dropna(subset=["num_tasks", "task_batch_size"]))
    axes = [*_OPTIMISER, "num_tasks", "task_batch_size"]
    runs = runs.assign(condition=conditions(runs, axes), optimiser=_optimisers(runs))
    rows = []
    for key, line in group_by(runs, _LINE):
        law = _law(line, "task_batch_size")
        for batch_size, same in group_by(line, "task_batch_size"):
            found = vars(survival.median(BY_TRAINING_LOSS.lengths(same)))
            row: dict[str, Any] = dict(zip(_LINE, key, strict=True)) | {
                "task_batch_size": batch_size,
                "median": found["steps"],
            }
            row |= {name: found[name] for name in ("low", "high", "budget", "runs", "left")}
            for name, old in (("seen", "median"), ("low", "low"), ("high", "high"), ("budget", "budget")):
                row[f"tasks_{name}"] = row[old] * batch_size
            rows.append(row | law)
    columns = [*_LINE, "task_batch_size", "median", "low", "high", "budget", "runs", "left"]
    columns += ["tasks_seen", "tasks_low", "tasks_high", "tasks_budget", *_LAW]
    by_tasks = []
    bounded = runs[np.isfinite(runs["num_tasks"])]
    for key, line in group_by(bounded, _ACROSS):
        law = dict(zip(_BY_TASKS, _law(line, "num_tasks").values(), strict=True))
        by_tasks.append(dict(zip(_ACROSS, key, strict=True)) | law)
    laws = pd.DataFrame(by_tasks, columns=[*_ACROSS, *_BY_TASKS])
    return pd.DataFrame(rows, columns=columns).merge(laws, on=_ACROSS, how="left")


def _optimisers(runs: pd.DataFrame) -> pd.Series:
    """Returns the names of the optimisers, with their learning rate and eps where these vary."""
    names = words = runs["optimizer"].fillna("unknown optimiser")
    for column in ("learning_rate", "eps"):
        varies = runs.groupby(names)[column].transform("nunique") > 1
        words = words.where(~varies, words + runs[column].map(f", {column.replace('_', ' ')} {{:g}}".format))
    return words


def _law(runs: pd.DataFrame, size: str) -> dict[str, float | str]:
    law = power_law.fit(runs[size].to_numpy(float), BY_TRAINING_LOSS.lengths(runs))
    if isinstance(law, str):
        return dict.fromkeys(_LAW, math.nan) | {"no_law": law}
    exponents = law.exponent, law.low, law.high
    return dict(zip(_LAW, (*exponents, law.coefficient, law.scatter, ""), strict=True))


def laws(table: pd.DataFrame) -> pd.DataFrame:
    """Returns the power laws in rows of `numbers`.

    There is one for each condition, optimiser and num_tasks with several batch sizes, with its number of runs and how
    many of them left.
    """
    several = table[table.groupby(_LINE)["task_batch_size"].transform("size") > 1]
    return several.groupby(_LINE, as_index=False).agg(_SUMS | dict.fromkeys(_LAW, "first"))


def laws_by_tasks(table: pd.DataFrame) -> pd.DataFrame:
    """Returns the power laws of the number of tasks in rows of `numbers`.

    There is one for each condition, optimiser and task_batch_size with several bounded numbers of tasks, with the
    columns of `laws`.
    """
    bounded = table[np.isfinite(table["num_tasks"])]
    several = bounded[bounded.groupby(_ACROSS)["num_tasks"].transform("size") > 1]
    found = several.groupby(_ACROSS, as_index=False).agg(
        {"runs": "sum", "left": "sum"} | dict.fromkeys(_BY_TASKS, "first")
    )
    return found.rename(columns=dict(zip(_BY_TASKS, _LAW, strict=True)))


def sentence_by_tasks(law: pd.Series) -> str:
    """Returns a row of `laws_by_tasks` in words."""
    start = f"B = {law['task_batch_size']:,.0f}"
    if law["no_law"]:
        return f"{start}: no fit against K, {law['no_law']}."
    length = power(law, 0, "K")
    return f"{start}: the plateau lasts for {length} steps ({law['left']:.0f} of {law['runs']:.0f} runs have left)."


def sentence(law: pd.Series) -> str:
    """Returns a row of `laws` in words."""
    start = f"K = {groups.number(law['num_tasks'])}"
    if law["no_law"]:
        return f"{start}: no fit, {law['no_law']}."
    text = f"{start}: the plateau lasts for {power(law, 0)} steps, which is {power(law, 1)} tasks"
    if law["exponent_low"] > -1:
        text += ": larger batches leave it after more tasks"
    elif law["exponent_high"] < -1:
        text += ": larger batches leave it after fewer tasks"
    return f"{text} ({law['left']:.0f} of {law['runs']:.0f} runs have left)."


def power(law: pd.Series, more: int, size: str = "B") -> str:
    """Returns the exponent of a row of `laws`, plus `more`, with its interval, as a power of the size."""
    value, low, high = (law[name] + more for name in ("exponent", "exponent_low", "exponent_high"))
    return f"{size}^{value:.2f} [{low:.2f}, {high:.2f}]"
