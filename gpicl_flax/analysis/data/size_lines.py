"""Runs that differ in one size and are alike otherwise: what scaling laws are fitted to."""

import dataclasses
import zlib
from collections.abc import Iterator

import numpy as np
import pandas as pd

from gpicl_flax.analysis.data import configurations
from gpicl_flax.analysis.data.configurations import BASELINES, PARAMETERS, SIZES, STATE_PAPER
from gpicl_flax.analysis.data.frames import column_names, group_by
from gpicl_flax.analysis.data.groups import conditions
from gpicl_flax.analysis.data.study import Study

TASKS, EXAMPLES, COMPUTE = "num_tasks", "examples", "compute"
WORDS = {
    STATE_PAPER: "state size",
    PARAMETERS: "parameter count",
    TASKS: "number of tasks",
    EXAMPLES: "examples",
    COMPUTE: "compute",
}
ACCURACY, LOSS = "last", "loss"  # the scores, of `evaluations.NUMBERS`


@dataclasses.dataclass(frozen=True, eq=False)
class Line:
    """Runs that differ in one size, and in their seeds.

    Attributes:
      size: which size: a key of `WORDS`.
      condition: the other differences to the runs of other lines, in words.
      tasks: 'seen' or 'unseen', on which they were tested.
      test_dataset: the base dataset tested on.
      own: whether that is the base dataset trained on.
      architecture: the model, with its size where several are compared by another size than that of the model.
      chance: the accuracy of guessing; NaN for numbers.
      sizes: [K], ascending.
      values: [S, K], the score of each seed that was run at all sizes.
      seeds_left_out: how many seeds were run at some sizes only.
      run_ids: those of all these runs.
    """

    size: str
    condition: str
    tasks: str
    test_dataset: str
    own: bool
    architecture: str
    chance: float
    sizes: np.ndarray
    values: np.ndarray
    seeds_left_out: int
    run_ids: tuple[str, ...]

    @property
    def of_models(self) -> bool:
        """Whether the size is that of models, rather than of their training."""
        return self.size in (STATE_PAPER, PARAMETERS)

    @property
    def draw_seed(self) -> int:
        """A number that lines of the same runs share, whatever their size."""
        return zlib.crc32("\n".join(self.run_ids).encode())


def lines(study: Study, score: str) -> list[Line]:
    """Returns the lines of the runs that are done, of two or more sizes each. Baselines have none.

    State and parameters are those of models. Examples are those that a run was trained on: steps x sequences x
    positions. Compute is the flops of the matrix products of training. Where runs of older versions do not say these,
    it is 6 x parameters x examples, the estimate of Kaplan et al. (2020, arXiv 2001.08361); if all had the same number
    of examples, that would say the same as the parameters, and has no line. Values of 0 and unbounded numbers of tasks
    have no place on a logarithmic axis, and are left out.

    Args:
      study: the runs.
      score: ACCURACY or LOSS.
    """
    rows = study.final(score).dropna(subset=[*SIZES, "task_batch_size", "sequence_length", "evaluated_at", "seed"])
    rows = rows[~rows["model"].isin(BASELINES)]
    if rows.empty:
        return []
    examples = rows["evaluated_at"] * rows["task_batch_size"].astype(float) * rows["sequence_length"].astype(float)
    rows = rows.assign(
        architecture=configurations.architectures(rows),
        examples=examples,
        compute=rows["step_flops"] * rows["evaluated_at"]
        if counts_flops(study)
        else 6 * rows[PARAMETERS].astype(float) * examples,
    )
    axes = ["architecture", *SIZES, "tasks", "test_dataset"]
    by_size = conditions(rows, axes)
    by_tasks = conditions(rows, axes, across_tasks=True)
    by_examples = conditions(_without_steps(rows), axes)
    named = rows.assign(architecture=_with_sizes(rows))
    return [
        *_lines(rows.assign(condition=by_size), STATE_PAPER, score),
        *_lines(rows.assign(condition=by_size), PARAMETERS, score),
        *_lines(named.assign(condition=by_tasks), TASKS, score),
        *_lines(named.assign(condition=by_examples), EXAMPLES, score),
        *_lines(rows.assign(condition=by_examples), COMPUTE, score, also_at_equal_examples=counts_flops(study)),
    ]


def counts_flops(study: Study) -> bool:
    """Returns whether all runs that are done say how many flops a step took."""
    return "step_flops" in study.table and bool(study.ended()["step_flops"].notna().all())


def _lines(rows: pd.DataFrame, size: str, score: str, *, also_at_equal_examples: bool = False) -> Iterator[Line]:
    rows = rows[np.isfinite(rows[size].astype(float)) & (rows[size].astype(float) > 0)]
    for (condition, tasks, test_dataset, architecture), own in group_by(
        rows, ["condition", "tasks", "test_dataset", "architecture"]
    ):
        says_more = size != COMPUTE or also_at_equal_examples or own[EXAMPLES].nunique() > 1
        if own[size].nunique() < 2 or not says_more:
            continue
        values = own.pivot_table(index="seed", columns=size, values=score)
        whole = values.dropna()
        yield Line(
            size,
            condition,
            tasks,
            test_dataset,
            bool((own["base_dataset"] == test_dataset).all()),
            architecture,
            float(1 / own["num_classes"].astype(float).mean()),
            whole.columns.to_numpy(float),
            whole.to_numpy(float),
            len(values) - len(whole),
            tuple(sorted(own["run_id"])),
        )


def _with_sizes(rows: pd.DataFrame) -> pd.Series:
    """Returns architectures, with their parameter counts (and states) where there are several of one."""
    named = rows["architecture"]
    for column, words in ((PARAMETERS, "parameters"), (STATE_PAPER, "in the state")):
        several = rows.groupby(named)[column].transform("nunique") > 1
        counts = rows[column].astype(float).map(f", {{:,.0f}} {words}".format)
        named = named.where(~several, named + counts)
    return named


def _without_steps(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns rows without the columns that name the number of steps, or what goes with it one for one."""
    goes_with = [
        name
        for name in column_names(rows)
        if name.startswith(("binding_", "label_"))
        and len(pairs := rows[[name, "evaluated_at"]].drop_duplicates())
        == pairs[name].nunique(dropna=False)
        == pairs["evaluated_at"].nunique()
    ]
    return rows.drop(columns=goes_with)
