"""The paper's insights (Appendix A.1), each with what the runs of a study say about it."""

import dataclasses
from collections.abc import Callable

import pandas as pd

from gpicl_flax.analysis.data import groups, line_laws, selections
from gpicl_flax.analysis.data.configurations import STATE_PAPER
from gpicl_flax.analysis.data.frames import row_with_highest
from gpicl_flax.analysis.data.phases import BEHAVIOURS
from gpicl_flax.analysis.data.size_lines import ACCURACY
from gpicl_flax.analysis.data.study import Study
from gpicl_flax.analysis.figures import fig04_learning_phases, fig06_size_predictors
from gpicl_flax.analysis.stats import predictors
from gpicl_flax.records.phase import GAIN_CUT

SUPPORTED, NOT_SUPPORTED, NOT_ENOUGH = "supported", "not supported", "not enough runs"

# Models without the inductive biases of a learning algorithm. They have neither shared parameters that make them
# equivariant nor gradients.
BLACK_BOXES = (
    "Transformer", "LSTM", "OuterProductLSTM", "VSMLWithoutSymmetries", "DeltaNet", "LinearAttention", "RetNet",
    "Mamba2", "GLA", "MLSTM", "KDA", "RWKV7", "RGLRU", "Hybrid", "SlidingWindowTransformer",
)  # fmt: skip
ENOUGH_TASKS = 2**13  # the paper needed at least this many to learn-to-learn; with fewer, its absence says nothing

_CONDITION = ["model", "base_dataset", "condition"]


@dataclasses.dataclass(frozen=True)
class Finding:
    """The answer of runs to an insight.

    Attributes:
      number: the number of the insight.
      claim: in the paper's words.
      verdict: SUPPORTED, NOT_SUPPORTED or NOT_ENOUGH.
      because: the numbers behind the verdict, and the threshold.
      figures: those that show them.
    """

    number: int
    claim: str
    verdict: str
    because: str
    figures: str


def black_boxes(study: Study) -> Finding:
    """Judges insight 1: black-box models can learn-to-learn.

    Supported: some black-box model gains GAIN_CUT or more on unseen tasks, with its whole 95% interval. Not supported:
    there are runs with ENOUGH_TASKS, and the interval of none of them reaches that.
    """
    found = fig04_learning_phases.behaviours(study)
    found = found[found["model"].isin(BLACK_BOXES)].dropna(subset=["unseen_gain"])
    if found.empty:
        verdict, because = NOT_ENOUGH, "No run of a black-box model that is done was meta-tested on unseen tasks."
    else:
        enough = found[found["num_tasks"] >= ENOUGH_TASKS]
        best = row_with_highest(found, "unseen_low")
        verdict = _verdict(best["unseen_low"] >= GAIN_CUT, enough["unseen_high"])
        because = (
            f"The best is {_setting(best)}: on unseen tasks its last prediction is "
            f"{_gain(best, 'unseen_gain', 'unseen_')} more accurate than its first; the threshold is {GAIN_CUT:g}."
        )
        fewest = fig04_learning_phases.fewest_to_generalize(found)
        if pd.notna(fewest):
            because += (
                f" The smallest number of tasks with which the mean gain reaches it is {groups.number(fewest)} "
                "(the paper: 2^13)."
            )
        elif enough.empty:
            because += f" No run has {groups.tasks(ENOUGH_TASKS)} or more."
    return Finding(1, "It is possible to learn-to-learn with black-box models.", verdict, because, "Figures 2, 3, 4")


def augmentations(study: Study) -> Finding:
    """Judges insight 2: data augmentations are effective.

    Supported: in some setting the gain on unseen tasks of a base dataset that was not trained on is GAIN_CUT or more
    with the largest number of tasks, and more than with the smallest, both beyond their 95% intervals. Not supported:
    there are such settings with ENOUGH_TASKS, and the interval of none reaches that.
    """
    table = fig04_learning_phases.numbers(study)
    table = table[(table["tasks"] == "unseen") & (table["test_dataset"] != table["base_dataset"])]
    pairs = []
    for _, rows in table.groupby([*_CONDITION, "test_dataset"]):
        if rows["num_tasks"].nunique() > 1:
            fewest, most = (rows.sort_values("num_tasks").iloc[end] for end in (0, -1))
            pairs.append(
                (most["low"] >= GAIN_CUT and most["low"] > fewest["high"], most["mean"] - fewest["mean"], most, fewest)
            )
    if not pairs:
        verdict = NOT_ENOUGH
        because = (
            "No runs that are done, alike but for at least two numbers of tasks, were meta-tested on another base "
            "dataset than that trained on."
        )
    else:
        holds, _, most, fewest = max(pairs, key=lambda pair: pair[:2])
        highs = pd.Series([pair[2]["high"] for pair in pairs if pair[2]["num_tasks"] >= ENOUGH_TASKS], dtype=float)
        verdict = _verdict(holds, highs)
        because = (
            f"{_setting(most)}, tested on {most['test_dataset']}: the last prediction is {_gain(most, 'mean')} more "
            f"accurate than the first, and {_gain(fewest, 'mean')} with {groups.tasks(fewest['num_tasks'])}; "
            f"the threshold is {GAIN_CUT:g}."
        )
        if highs.empty:
            because += f" No such runs have {groups.tasks(ENOUGH_TASKS)} or more."
    return Finding(
        2, "Simple data augmentations are effective for general learning-to-learn.", verdict, because, "Figures 4, 11"
    )


def transitions(study: Study) -> Finding:
    """Judges insight 3: there are phase transitions in the number of tasks.

    Supported: in some setting all three of `phases.BEHAVIOURS` are found, in this order of the number of tasks, and no
    setting has another order. Not supported: some setting has another order.
    """
    found = fig04_learning_phases.behaviours(study).dropna(subset=["behaviour"])
    orders = {}
    for key, rows in found.groupby(_CONDITION):
        rows = rows.sort_values("num_tasks")
        orders[key] = [(BEHAVIOURS.index(x), n) for x, n in zip(rows["behaviour"], rows["num_tasks"], strict=True)]
    wrong = [key for key, order in orders.items() if [kind for kind, _ in order] != sorted(kind for kind, _ in order)]
    whole = [key for key, order in orders.items() if {kind for kind, _ in order} == {0, 1, 2}]
    shown = wrong or whole or sorted(orders, key=lambda key: -len({kind for kind, _ in orders[key]}))
    verdict = NOT_SUPPORTED if wrong else SUPPORTED if whole else NOT_ENOUGH
    because = "No runs that are done tell what they have learned." if not shown else ""
    for model, base, condition in shown[:1]:
        order = orders[model, base, condition]
        firsts = {kind: number for kind, number in reversed(order)}
        parts = [f"{BEHAVIOURS[kind]} from {groups.tasks(number)} on" for kind, number in sorted(firsts.items())]
        because = f"{_named(model, base, condition)}: {', '.join(parts)}"
        if wrong:
            because += ", and again a former one with more tasks"
        absent = [name for index, name in enumerate(BEHAVIOURS) if index not in firsts]
        because += f"; {' and '.join(absent)} not found." if absent else "."
        because += f" They are told by gains of {GAIN_CUT:g}."
    claim = (
        "The meta-learned behavior has phase transitions: when increasing the number of tasks, from task memorization, "
        "to task identification, to general learning-to-learn."
    )
    return Finding(3, claim, verdict, because, "Figures 4, 11, 12")


def large_state(study: Study) -> Finding:
    """Judges insight 4: state size predicts accuracy better than parameter count does.

    It compares all architectures together, on unseen tasks of the base dataset trained on, with the paper's count of
    the state. Supported: in some setting state size predicts accuracy better (see `predictors`), and in none parameter
    count does. Not supported: in some setting parameter count does. Scaling laws have no part in the verdict; where
    there are some, a sentence says which size predicts the largest models best.
    """
    compared = fig06_size_predictors.compare(
        study,
        lambda test: (
            (test["scope"], test["tasks"], test["state"]) == (fig06_size_predictors.ALL, "unseen", STATE_PAPER)
            and test["own"]
        ),
    )
    found = {comparison.verdict: (test, comparison) for test, comparison in reversed(compared)}
    verdict = (
        NOT_SUPPORTED if predictors.PARAMETERS in found else SUPPORTED if predictors.STATE in found else NOT_ENOUGH
    )
    if not found:
        because = "No runs that are done, of several architectures, were meta-tested on unseen tasks."
    else:
        decisive = {NOT_SUPPORTED: predictors.PARAMETERS, SUPPORTED: predictors.STATE}.get(
            verdict, next(reversed(found))
        )
        test, comparison = found[decisive]
        where = f"{test['condition']}: " if test["condition"] else ""
        because = (
            f"{where}{comparison.sentence} ({comparison.configurations} configurations, "
            f"tested on {test['test_dataset']}.)"
        )
        because += f" {selections.sentence(study.table, study.trials)}"
    laws = line_laws.fitted(study, ACCURACY, lambda line: line.own and line.tasks == "unseen" and line.of_models)
    because = " ".join([because, *line_laws.sentences(laws, ACCURACY)])
    return Finding(4, "Large state is more crucial than parameter count.", verdict, because, "Figures 6, 13")


INSIGHTS: tuple[Callable[[Study], Finding], ...] = (black_boxes, augmentations, transitions, large_state)


def _verdict(holds: bool, highs: pd.Series) -> str:
    """Judges a claim that a number reaches GAIN_CUT.

    Args:
      holds: whether it does.
      highs: the upper ends of the intervals where it should.
    """
    if holds:
        return SUPPORTED
    return NOT_SUPPORTED if len(highs) and (highs < GAIN_CUT).all() else NOT_ENOUGH


def _setting(row: pd.Series) -> str:
    return f"{_named(*row[_CONDITION])} with {groups.tasks(row['num_tasks'])}"


def _named(model: str, base_dataset: str, condition: str) -> str:
    return ", ".join(filter(None, (f"{model} trained on {base_dataset}", condition)))


def _gain(row: pd.Series, mean: str, ends: str = "") -> str:
    return f"{row[mean]:.2f} [{row[f'{ends}low']:.2f}, {row[f'{ends}high']:.2f}]"
