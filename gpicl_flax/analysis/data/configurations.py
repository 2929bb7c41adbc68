"""What each configuration of a model reaches: the accuracy of its last prediction, over seeds."""

import numpy as np
import pandas as pd

from gpicl_flax.analysis.data.groups import conditions
from gpicl_flax.analysis.data.study import Study
from gpicl_flax.analysis.stats import intervals

# Learners with a gradient step inside: their state is not what a model has learned to keep.
BASELINES = ("OnlineSGD", "MAML")
STATE_PAPER, STATE_EXACT, PARAMETERS = SIZES = ("state_size_paper", "state_size_exact", "parameters")
TEST = ["condition", "tasks", "test_dataset"]
_CONFIGURATION = ["architecture", "baseline", *SIZES]


def table(study: Study) -> pd.DataFrame:
    """A row for each configuration and each test (condition, tasks and test_dataset) that its runs were evaluated on.

    Runs that are not done do not count: others were meta-trained for longer. Those of one configuration differ in their seeds.

    Columns:
      condition: what else tells runs apart (see `groups.conditions`); tasks ('seen' or 'unseen'); test_dataset; own: whether
        that is the one trained on; chance: the accuracy of guessing;
      architecture: the model, with its intervention where a sweep names these; baseline: whether it is one of `BASELINES`;
      the sizes of `SIZES`;
      accuracy: of the last prediction, the mean over seeds, with the ends of its 95% interval, _low and _high;
      seeds: how many runs; interval: what it is over: 'seeds' (Student's), or 'sequences' of the one run there is (Wilson's).
    """
    rows = counted(study)
    rows = rows.assign(
        architecture=_architectures(rows),
        baseline=rows["model"].isin(BASELINES),
        own=rows["test_dataset"] == rows["base_dataset"],
        chance=1 / rows["num_classes"].astype(float),
    )
    rows = rows.assign(condition=conditions(rows, ["architecture", *SIZES, "tasks", "test_dataset"]))
    found = intervals.table(rows, [*TEST, "own", "chance", *_CONFIGURATION], "last")
    low, high = found.pop("low").clip(lower=0), found.pop("high").clip(upper=1)
    found = found.rename(columns={"mean": "accuracy", "runs": "seeds"}).assign(accuracy_low=low, accuracy_high=high)
    return found.assign(interval=np.where(found["seeds"] > 1, "seeds", "sequences"))


def counted(study: Study) -> pd.DataFrame:
    """Of the last evaluations (`Study.final`) those that count: of runs that tell their sizes."""
    return study.final().dropna(subset=["num_classes", *SIZES])


def _architectures(rows: pd.DataFrame) -> pd.Series:
    """The models; where a sweep names its interventions, with these."""
    if "label_intervention" not in rows:
        return rows["model"]
    return rows["model"].where(rows["label_intervention"].isna(), rows["model"] + ", " + rows["label_intervention"])


def by_test(rows: pd.DataFrame) -> list[tuple[tuple[str, str, str], pd.DataFrame]]:
    """The rows of each test, by the values of `TEST`; the base dataset trained on first, seen tasks before unseen."""
    tests = [(key, same) for key, same in rows.groupby(TEST)]
    return sorted(tests, key=lambda test: (test[0][0], not test[1]["own"].all(), test[0][2], test[0][1]))


def name_of(test: tuple[str, str, str], rows: pd.DataFrame) -> str:
    """A test in words: 'unseen tasks of digits', with the condition where the rows of all tests have several."""
    condition, tasks, test_dataset = test
    own = rows[(rows["condition"] == condition) & (rows["test_dataset"] == test_dataset)]["own"].all()
    words = f"{tasks} tasks of {test_dataset}" + ("" if own else ", a dataset not trained on")
    return f"{condition}: {words}" if rows["condition"].nunique() > 1 else words
