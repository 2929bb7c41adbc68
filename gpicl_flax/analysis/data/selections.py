"""The choices of a sweep for its configurations (`sweep.select`), by the runs of its first stage.

A configuration is a set of runs with one `selection_configuration`. Its trials are the runs of stage one, by whose
validation its settings are chosen; the others are reported. Figures of results show the latter alone.
"""

import json
import math
from typing import Any

import numpy as np
import pandas as pd

from gpicl_flax.analysis.data.frames import group_by
from gpicl_flax.records.run_folder import DIVERGED
from gpicl_flax.records.selection_rule import ACCURACY, REPORT, SELECT, best

STAGE, CONFIGURATION, METRIC, VALUES = COLUMNS = tuple(
    f"selection_{name}" for name in ("stage", "configuration", "metric", "values")
)
CHOSEN = "selected"  # stands for values that were chosen, wherever runs are compared by their settings
_OF_CANDIDATES = [
    "configuration", "values", "value", "score", "seeds", "diverged", "on_plateau", "chosen", "works", "complete",
]  # fmt: skip
_POINTS = 0.02  # of accuracy, or as a share of the loss: candidates this close to the best work as well


def columns(run_info: dict[str, Any]) -> dict[str, str]:
    """Returns the columns of a run that belongs to a selection; none for any other."""
    found = run_info.get("selection")
    if not isinstance(found, dict) or not isinstance(found.get("values"), dict):
        return {}
    texts = {name: str(found.get(name)) for name in ("stage", "configuration", "metric")}
    return {f"selection_{name}": text for name, text in texts.items()} | {VALUES: json.dumps(found["values"])}


def divide(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Returns the runs to be reported, and the trials.

    Of a configuration whose choice has changed since, because the grid of candidates has grown, only the runs with the
    new choice are reported. If nothing is reported yet, trials are all that there is, and are reported.
    """
    if STAGE not in table:
        return table, table.iloc[:0]
    is_trial = table[STAGE] == SELECT
    reported, trials = table[~is_trial], table[is_trial]
    if reported.empty:
        return trials, table.iloc[:0]
    chosen = choices(trials).set_index("configuration")["values"].dropna()
    current = reported[CONFIGURATION].map(chosen)
    reported = reported[current.isna() | (current == reported[VALUES])]
    return _without_values(reported), trials


def _without_values(reported: pd.DataFrame) -> pd.DataFrame:
    """Returns runs whose chosen settings make no difference between configurations.

    Otherwise two sizes with different learning rates would count as two experiments.
    """
    reported = reported.copy()
    for label, text in reported[VALUES].dropna().items():
        for name in json.loads(text):
            for column in (f"binding_{name}", f"label_{name}"):
                if column in reported:
                    reported.loc[label, column] = CHOSEN  # pyright: ignore[reportArgumentType]  # any hashable
    return reported


def candidates(trials: pd.DataFrame) -> pd.DataFrame:
    """Returns a row for each candidate of each configuration, in the order of their values.

    Columns:
      configuration: that of `selection_configuration`.
      values: the candidate, JSON from names to texts.
      value: its number, if it has one value that is a number; otherwise NaN.
      score: the mean over seeds of the validation accuracy at the last position, or of minus the loss; NaN if a run
        diverged or has not ended.
      seeds: the number of runs that are done.
      diverged: the number of runs that diverged.
      on_plateau: the share of its runs that stand on their plateau at the end.
      chosen: whether it is the best.
      works: whether it is within 2 points of accuracy, or 2% of the loss, of the best.
      complete: whether all runs of its configuration have ended.
    """
    rows = []
    for name, own in group_by(trials, CONFIGURATION, sort=False):
        found = sorted(
            ((values, _number(values), runs) for values, runs in group_by(own, VALUES, sort=False)),
            key=lambda candidate: candidate[1],  # a stable order where there are no numbers
        )
        scores = [[_score(run) for _, run in runs.iterrows()] for _, _, runs in found]
        complete = all(not math.isnan(score) for each in scores for score in each)
        index = best(scores) if complete else None
        means = [float(np.mean(each)) if np.isfinite(each).all() else math.nan for each in scores]
        for number, (values, value, runs) in enumerate(found):
            rows.append(
                {
                    "configuration": name,
                    "values": values,
                    "value": value,
                    "score": means[number],
                    "seeds": int((runs["ended"] == "DONE").sum()),
                    "diverged": int((runs["ended"] == DIVERGED).sum()),
                    "on_plateau": on_plateau(runs),
                    "chosen": number == index,
                    "works": index is not None and means[number] >= means[index] - _tolerance(runs, means[index]),
                    "complete": complete,
                }
            )
    return pd.DataFrame(rows, columns=_OF_CANDIDATES)


def choices(trials: pd.DataFrame) -> pd.DataFrame:
    """Returns a row for each configuration of trials.

    Columns:
      configuration: that of `selection_configuration`.
      values: the chosen candidate, as in `candidates`; missing if none is chosen yet, or none can be.
      value: its number.
      score: its score.
      candidates, working: how many candidates there are, and how many of them work as well as the best.
      window_low, window_high: the ends of the unbroken range of values around the best that work; NaN without numbers.
      edge: 'lowest' or 'highest' if the best is at that end of the candidates: a better one may lie beyond.
      on_plateau: the share of the runs of the best that stand on their plateau at the end.
      seeds: the runs of the best.
    """
    rows = []
    for name, own in group_by(candidates(trials), "configuration", sort=False):
        own = own.reset_index(drop=True)
        row: dict[str, Any] = {"configuration": name, "candidates": len(own), "working": int(own["works"].sum())}
        if own["chosen"].any():
            at = own["chosen"].tolist().index(True)
            row |= {key: own.loc[at, key] for key in ("values", "value", "score", "on_plateau", "seeds")}
            row |= _window(own, at)
        rows.append(row)
    names = ("configuration", "values", "value", "score", "candidates", "working")
    more = ("window_low", "window_high", "edge", "on_plateau", "seeds")
    return pd.DataFrame(rows, columns=[*names, *more]).astype({"values": object, "edge": object})


def _window(own: pd.DataFrame, at: int) -> dict[str, Any]:
    if own["value"].isna().any():
        return {"edge": ""}
    low = high = at
    while low > 0 and own.loc[low - 1, "works"]:
        low -= 1
    while high < len(own) - 1 and own.loc[high + 1, "works"]:
        high += 1
    edge = "lowest" if at == 0 else "highest" if at == len(own) - 1 else ""
    return {"window_low": own.loc[low, "value"], "window_high": own.loc[high, "value"], "edge": edge}


def _number(values: str) -> float:
    """Returns the number of a candidate with one value; NaN if it has several, or another one."""
    found = list(json.loads(values).values())
    try:
        return float(found[0]) if len(found) == 1 else math.nan
    except ValueError:
        return math.nan


def _score(run: pd.Series) -> float:
    """Returns the score of a trial: minus infinity if it diverged, NaN if it has not ended."""
    if run["ended"] == DIVERGED:
        return -math.inf
    if run["ended"] != "DONE":
        return math.nan
    if run[METRIC] == ACCURACY:
        return float(run.get(f"unseen_last[{run['base_dataset']}]", math.nan))
    return -float(run.get(f"unseen_loss[{run['base_dataset']}]", math.nan))


def on_plateau(runs: pd.DataFrame) -> float:
    """Returns the share of runs that have not left their plateau, by the loss on unseen tasks where that is logged."""
    column = "unseen_plateau_left" if runs["unseen_plateau_left"].notna().all() else "plateau_left"
    left = runs[column].dropna().astype(bool)
    return float(1 - left.mean()) if len(left) else math.nan


def _tolerance(runs: pd.DataFrame, score: float) -> float:
    return _POINTS if runs[METRIC].iloc[0] == ACCURACY else _POINTS * abs(score)


def sentence(reported: pd.DataFrame, trials: pd.DataFrame) -> str:
    """Returns a sentence that says of how many reported configurations the settings were chosen, and how.

    Args:
      reported: the runs that are reported.
      trials: the runs by which settings were chosen.
    """
    if STAGE not in reported or not (reported[STAGE] == REPORT).any():
        return "No setting was tuned: every configuration was trained with the settings of its file."
    if trials.empty:
        return "Settings were chosen by other runs, which are not here, so how well they are tuned is not known."
    chosen = choices(trials)
    chosen = chosen[chosen["configuration"].isin(reported[CONFIGURATION].dropna())]
    names = ", ".join(json.loads(chosen["values"].dropna().iloc[0])) if chosen["values"].notna().any() else "settings"
    edges = int((chosen["edge"] != "").sum())
    text = (
        f"Tuned: {names} was chosen for each of {len(chosen)} configurations, among {_range(chosen['candidates'])} "
        f"candidates, by the {trials[METRIC].iloc[0]} on validation of {_range(chosen['seeds'])} seeds of its own."
    )
    if edges:
        text += (
            f" Of these, {edges} cannot be called tuned: their best candidate is at the edge of the grid, and a better "
            "one may lie beyond."
        )
    others = reported[STAGE] != REPORT
    if others.any():
        text += f" {int(others.sum())} runs were not tuned."
    return text


def _range(numbers: pd.Series) -> str:
    low, high = int(numbers.min()), int(numbers.max())
    return f"{low}" if low == high else f"{low} to {high}"
