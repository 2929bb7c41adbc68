"""The accuracy that each configuration of a model reaches: that of its last prediction, over seeds."""

import numpy as np
import pandas as pd

from gpicl_flax.analysis.data.frames import group_by
from gpicl_flax.analysis.data.groups import conditions
from gpicl_flax.analysis.data.study import Study
from gpicl_flax.analysis.stats import intervals

# Learners with a gradient step inside. Their state is not what a model has learned to keep.
BASELINES = ("OnlineSGD", "MAML")
STATE_PAPER, STATE_EXACT, PARAMETERS = SIZES = ("state_size_paper", "state_size_exact", "parameters")
TEST = ["condition", "tasks", "test_dataset"]
_CONFIGURATION = ["architecture", "baseline", *SIZES]


def table(study: Study) -> pd.DataFrame:
    """Returns a row for each configuration and each test that its runs were evaluated on.

    A test is a condition, tasks and a test_dataset. Only runs that are done count, because others were meta-trained for
    a different number of steps. The runs of one configuration differ in their seeds.

    Columns:
      condition: the other differences between runs, in words (see `groups.conditions`).
      tasks: 'seen' or 'unseen'.
      test_dataset: the base dataset tested on.
      own: whether that is the base dataset trained on.
      chance: the accuracy of guessing.
      architecture: the model, with its intervention where a sweep names these.
      baseline: whether the model is one of `BASELINES`.
      state_size_paper, state_size_exact, parameters: the sizes of `SIZES`.
      accuracy: the accuracy of the last prediction, the mean over seeds. accuracy_low and accuracy_high are the ends of
        its 95% interval.
      seeds: the number of runs.
      interval: 'seeds' for Student's interval over seeds, or 'sequences' for Wilson's over those of a single run.
    """
    rows = with_architectures(study)
    rows = rows.assign(condition=conditions(rows, ["architecture", *SIZES, "tasks", "test_dataset"]))
    found = intervals.table(rows, [*TEST, "own", "chance", *_CONFIGURATION], "last")
    low, high = found.pop("low").clip(lower=0), found.pop("high").clip(upper=1)
    found = found.rename(columns={"mean": "accuracy", "runs": "seeds"}).assign(accuracy_low=low, accuracy_high=high)
    return found.assign(interval=np.where(found["seeds"] > 1, "seeds", "sequences"))


def counted(study: Study) -> pd.DataFrame:
    """Returns the last evaluations (`Study.final`) of the runs whose sizes are known."""
    return study.final().dropna(subset=["num_classes", *SIZES])


def with_architectures(study: Study) -> pd.DataFrame:
    """Returns the rows of `counted` with the columns architecture, baseline, own and chance (see `table`)."""
    rows = counted(study)
    return rows.assign(
        architecture=architectures(rows),
        baseline=rows["model"].isin(BASELINES),
        own=rows["test_dataset"] == rows["base_dataset"],
        chance=1 / rows["num_classes"].astype(float),
    )


def architectures(rows: pd.DataFrame) -> pd.Series:
    """Returns the name of each model, with its intervention where a sweep names these."""
    if "label_intervention" not in rows:
        return rows["model"]
    return rows["model"].where(rows["label_intervention"].isna(), rows["model"] + ", " + rows["label_intervention"])


def by_test(rows: pd.DataFrame) -> list[tuple[tuple[str, str, str], pd.DataFrame]]:
    """Returns the rows of each test, by the values of `TEST`.

    The base dataset trained on comes first, and seen tasks come before unseen ones.
    """
    return sorted(group_by(rows, TEST), key=lambda test: (test[0][0], not test[1]["own"].all(), test[0][2], test[0][1]))


def name_of(test: tuple[str, str, str], rows: pd.DataFrame) -> str:
    """Returns a test in words, such as 'unseen tasks of digits'.

    The condition precedes them where the rows of all tests have several.
    """
    condition, tasks, test_dataset = test
    own = rows[(rows["condition"] == condition) & (rows["test_dataset"] == test_dataset)]["own"].all()
    words = f"{tasks} tasks of {test_dataset}" + ("" if own else ", a dataset not trained on")
    return f"{condition}: {words}" if rows["condition"].nunique() > 1 else words
