"""What each configuration of a model reaches: the accuracy of its last prediction, over seeds."""

import pandas as pd

from gpicl_flax.analysis import intervals
from gpicl_flax.analysis.study import Study
from gpicl_flax.records.run_folder import DONE

BASELINES = (
    "OnlineSGD",
    "MAML",
)  # learners with a gradient step inside: their state is not what a model has learned to keep
STATE_PAPER, STATE_EXACT, PARAMETERS = SIZES = ("state_size_paper", "state_size_exact", "parameters")
_TEST = ["panel", "tasks", "base_dataset"]
_CONFIGURATION = ["architecture", "baseline", "intervention", *SIZES]
COLUMNS = (
    *_TEST, "own", *_CONFIGURATION, "chance", "seeds", "accuracy", "accuracy_low", "accuracy_high", "interval",
)  # fmt: skip


def table(study: Study) -> pd.DataFrame:
    """A row for each configuration and each test (panel, tasks and base dataset) that its runs were evaluated on.

    Runs that are not done do not count: others were meta-trained for longer. Those of one configuration differ in their seeds.

    Columns:
      panel, tasks ('seen' or 'unseen'), base_dataset; own: whether that is the one trained on;
      architecture: the model, with its intervention where a sweep names these; baseline: whether it is one of `BASELINES`;
      intervention, and the sizes of `SIZES`;
      chance: the accuracy of guessing; seeds: how many runs;
      accuracy: of the last prediction, the mean over seeds, with the ends of its 95% interval, _low and _high;
      interval: what that is over: 'seeds' (Student's), or 'sequences' of the one run that there is (Wilson's).
    """
    runs = counted(study)
    runs = runs.assign(architecture=_architectures(runs), baseline=runs["model"].isin(BASELINES))
    runs = runs.rename(columns={"base_dataset": "trained_on", "evaluated_at": "step"})
    tests = runs[["run_id", "step", "panel", "trained_on", "num_classes", *_CONFIGURATION]].merge(
        study.evaluations.astype({"step": float}), on=["run_id", "step"]
    )
    rows = []
    for key, same in tests.groupby([*_TEST, *_CONFIGURATION]):
        mean, low, high = intervals.of_mean(same["last"])
        if len(same) == 1:
            low, high = same[["last_low", "last_high"]].iloc[0]
        rows.append(
            dict(zip([*_TEST, *_CONFIGURATION], key, strict=True))
            | {"own": (same["trained_on"] == key[2]).all(), "chance": 1 / same["num_classes"].iloc[0]}
            | {"seeds": len(same), "accuracy": mean, "accuracy_low": max(low, 0.0), "accuracy_high": min(high, 1.0)}
            | {"interval": "seeds" if len(same) > 1 else "sequences"}
        )
    return pd.DataFrame(rows, columns=COLUMNS)


def counted(study: Study) -> pd.DataFrame:
    """The runs that count: those that are done and tell their sizes and an accuracy."""
    done = study.table[study.table["ended"] == DONE]
    return done.dropna(subset=["panel", "intervention", "num_classes", "evaluated_at", *SIZES])


def _architectures(runs: pd.DataFrame) -> pd.Series:
    """The models; where a sweep names its interventions, with these."""
    named = runs["label_intervention"].notna() if "label_intervention" in runs else pd.Series(False, runs.index)
    return runs["model"].where(~named, runs["model"] + ", " + runs["intervention"])


def by_test(rows: pd.DataFrame) -> list[tuple[tuple[str, str, str], pd.DataFrame]]:
    """The rows of each test (panel, tasks, base dataset); the base dataset trained on first, seen tasks before unseen."""
    tests = [(key, same) for key, same in rows.groupby(_TEST)]
    return sorted(tests, key=lambda test: (test[0][0], not test[1]["own"].all(), test[0][2], test[0][1]))


def name_of(test: tuple[str, str, str], rows: pd.DataFrame) -> str:
    """A test in words: 'unseen tasks of digits', with the panel where the rows of all tests have several."""
    panel, tasks, base_dataset = test
    own = rows[(rows["panel"] == panel) & (rows["base_dataset"] == base_dataset)]["own"].all()
    words = f"{tasks} tasks of {base_dataset}" + ("" if own else ", a dataset not trained on")
    return f"{panel}: {words}" if rows["panel"].nunique() > 1 else words
