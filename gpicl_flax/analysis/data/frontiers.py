"""The frontier of each architecture: the best accuracy at each size, with what was chosen for it."""

import numpy as np
import pandas as pd

from gpicl_flax.analysis.data import configurations, selections
from gpicl_flax.analysis.data.configurations import PARAMETERS, SIZES, STATE_EXACT, STATE_PAPER
from gpicl_flax.analysis.data.frames import group_by
from gpicl_flax.analysis.data.groups import conditions
from gpicl_flax.analysis.data.study import Study
from gpicl_flax.analysis.stats import intervals
from gpicl_flax.records.selection_rule import REPORT

COMPUTE, EXAMPLES = "train_flops", "train_examples"
AXES = (STATE_PAPER, STATE_EXACT, PARAMETERS, COMPUTE, EXAMPLES)
_KEYS = ["base_dataset", "condition", "architecture", "selection_configuration"]


def table(study: Study) -> pd.DataFrame:
    """Returns a row for each configuration of models that a sweep chose settings for, tested on unseen tasks.

    The test is on the base dataset trained on. Baselines do not take part.

    Columns:
      base_dataset, condition, architecture, the sizes of `configurations.SIZES`, chance: as in `configurations.table`.
      train_flops: those of the matrix products of the whole training; NaN if run.json has none.
      train_examples: the examples of all sequences of the whole training.
      accuracy, accuracy_low, accuracy_high, seeds: the mean over seeds with its 95% interval.
      on_plateau: the share of these runs that stand on their plateau at the end.
      chosen, value, score, candidates, working, window_low, window_high, edge: see `selections.choices`; `chosen` are
        its values.
      tried_on_plateau: the share of the runs of the chosen candidate that stand on their plateau at the end.
      best_<axis>: for each of `AXES`, whether no other configuration of its architecture with that size has a higher
        score on validation. So the test does not choose which one a frontier shows.
    """
    rows = configurations.with_architectures(study)
    if selections.STAGE not in rows:
        return pd.DataFrame()
    rows = rows[(rows[selections.STAGE] == REPORT) & ~rows["baseline"]]
    rows = rows[(rows["tasks"] == "unseen") & rows["own"]]
    if rows.empty:
        return pd.DataFrame()
    steps = rows["last_step"].astype(float)
    rows = rows.assign(
        train_flops=rows.get("step_flops", pd.Series(np.nan, rows.index)) * steps,
        train_examples=rows["task_batch_size"] * rows["sequence_length"] * steps,
        condition=conditions(rows, ["architecture", *SIZES]),
    )
    found = intervals.table(rows, [*_KEYS, *SIZES, "chance"], "last")
    found = found.rename(columns={"mean": "accuracy", "runs": "seeds"})
    low, high = found.pop("low").clip(lower=0), found.pop("high").clip(upper=1)
    by_key = rows.groupby(_KEYS, dropna=False)
    # Early stops make runs of one configuration differ in their cost.
    means = by_key[[COMPUTE, EXAMPLES]].mean().reset_index()
    plateaus = pd.DataFrame(
        [(*key, selections.on_plateau(own)) for key, own in group_by(rows, _KEYS)], columns=[*_KEYS, "on_plateau"]
    )
    found = found.assign(accuracy_low=low, accuracy_high=high).merge(means, on=_KEYS).merge(plateaus, on=_KEYS)
    chosen = selections.choices(study.trials).drop(columns="seeds")
    chosen = chosen.rename(columns={"values": "chosen", "on_plateau": "tried_on_plateau"})
    found = found.merge(chosen, left_on="selection_configuration", right_on="configuration", how="left")
    for axis in AXES:
        same = found.groupby(["base_dataset", "condition", "architecture", axis], dropna=False)["score"]
        found[f"best_{axis}"] = (found["score"] == same.transform("max")) | found["score"].isna()
    return found.drop(columns="configuration").sort_values([*_KEYS[:3], STATE_PAPER]).reset_index(drop=True)
