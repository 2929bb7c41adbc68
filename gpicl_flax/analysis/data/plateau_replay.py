"""Replays the plateau-aware stop on kept runs: how many steps it would have saved, and which runs it wrongly ended.

A kept run made all its steps, so whether it left its plateau is known, and the stop is asked what it would have done.
"""

import collections
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd
import scipy.stats

from gpicl_flax.analysis.data.one_run import OneRun
from gpicl_flax.errors import Damaged
from gpicl_flax.records import json_lines, schemas
from gpicl_flax.records.plateau_rule import PlateauRule
from gpicl_flax.records.plateau_tracker import PlateauTracker
from gpicl_flax.runs.plateau_stop import EndedRun, PlateauStop, ended_run, make_rule
from gpicl_flax.training import plateau_stop

CONFIDENCE = 0.95  # of intervals


class KeptRun(NamedTuple):
    """A run with its whole log.

    Attributes:
      run_id: its name.
      run_info: run.json, or as much of it as says how the run is judged, and its `steps`.
      rows: the rows of its log, with step, loss_ema and, if it was diagnosed then, diagnostics.
      likeness: what it has in common with runs that are like it.
      began, ended: when, in any unit of time; None: not known.
    """

    run_id: str
    run_info: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    likeness: Hashable
    began: float | None = None
    ended: float | None = None


def kept(runs: Iterable[OneRun], settings: PlateauStop) -> list[KeptRun]:
    """Returns the runs whose end is known: they made all their steps or diverged, and have diagnostics."""
    found = []
    for run in runs:
        steps, last = run.run_info.get("steps"), max(run.metrics.index, default=0)
        if not steps or not run.diagnostics or run.stopped_early or not (last >= steps or run.ended):
            continue
        emas = run.metrics["loss_ema"].dropna()
        rows = [
            {"step": step, "loss_ema": ema}
            | ({"diagnostics": run.diagnostics[step]} if "unseen_loss" in run.diagnostics.get(step, {}) else {})
            for step, ema in zip(emas.index.tolist(), emas.tolist(), strict=True)
        ]
        found.append(KeptRun(run.run_id, run.run_info, rows, settings.likeness(run.bindings), *_times(run)))
    return found


def _times(run: OneRun) -> tuple[float | None, float | None]:
    """Returns when a run logged its first and its last row, if that is known."""
    try:
        rows = json_lines.read(run.folder.timing, schemas.TIMING)
    except Damaged:
        rows = []
    return (rows[0]["time"], rows[-1]["time"]) if rows else (None, None)


def stop_step(rule: PlateauRule, rows: Iterable[Mapping[str, Any]], tracker: PlateauTracker, steps: int) -> int | None:
    """Returns the step after whose row a run of `steps` steps is ended, given all rows of its log; None: it is not."""
    scores = []
    for row in rows:
        step, diagnostics = row["step"], row.get("diagnostics")
        tracker.follow(step, row["loss_ema"], diagnostics)
        scores = plateau_stop.with_score(scores, step, diagnostics)
        if not plateau_stop.on_plateau(tracker):
            return None
        if diagnostics and plateau_stop.leave_probability(rule, scores, step, steps, tracker) is not None:
            return step
    return None


def replay(runs: Sequence[KeptRun], settings: PlateauStop, *, leave_one_out: bool = False) -> pd.DataFrame:
    """Replays a sweep of these runs.

    A run sees the like runs that had ended before it began, each as the stop would have left it; where times are not
    known, those before it. It ends one dispatch after the row that decides, as in training.

    Args:
      runs: the runs, each before those that may learn from it if times are not known.
      settings: when runs end.
      leave_one_out: instead, a run sees all others, as they were kept.

    Returns:
      A row for each run: run_id, steps, like (how many it saw), left_at and stopped_at (missing if it did not), saved
      (steps) and wrong: it was stopped and would have left its plateau.
    """
    order = sorted(runs, key=lambda run: run.began or 0.0)
    as_kept = {id(run): ended_run(run.rows, PlateauTracker.from_run_info(run.run_info)) for run in order}
    seen: dict[Hashable, list[tuple[KeptRun, EndedRun]]] = collections.defaultdict(list)
    if leave_one_out:
        for run in order:
            if (end := as_kept[id(run)]) is not None:
                seen[run.likeness].append((run, end))
    table = []
    for run in order:
        own, steps = as_kept[id(run)], int(run.run_info["steps"])
        if own is None:
            continue
        like = [end for other, end in seen[run.likeness] if other is not run and _before(other, run, leave_one_out)]
        rule = make_rule(settings, like, steps)
        at = stop_step(rule, run.rows, PlateauTracker.from_run_info(run.run_info), steps) if rule.steps else None
        last = run.rows[-1]["step"]
        after = last if at is None else min((row["step"] for row in run.rows if row["step"] > at), default=last)
        stopped = after < last
        left_at = own.step if own.left else None
        table.append(
            {
                "run_id": run.run_id, "steps": last, "like": len(like), "left_at": left_at,
                "stopped_at": after if stopped else None, "saved": last - after if stopped else 0,
                "wrong": stopped and own.left,
            }
        )  # fmt: skip
        if not leave_one_out:
            seen[run.likeness].append((run, EndedRun(after, False) if stopped else own))
    columns = ["run_id", "steps", "like", "left_at", "stopped_at", "saved", "wrong"]
    return pd.DataFrame(table, columns=columns)


def _before(other: KeptRun, run: KeptRun, leave_one_out: bool) -> bool:
    return leave_one_out or other.ended is None or run.began is None or other.ended <= run.began


class Outcome(NamedTuple):
    """The outcome of replays.

    Attributes:
      runs, ended, wrong: how many runs there were, were ended early, and were so although they would have left.
      low, high: Wilson's 95% interval of the share of `wrong` among `ended`; NaN: none was ended.
      saved: the share of all steps that was saved.
    """

    runs: int
    ended: int
    wrong: int
    low: float
    high: float
    saved: float

    @property
    def text(self) -> str:
        """The outcome in words."""
        if not self.runs:
            return "no run"
        wrong = f"; {self.wrong} of these wrongly ({self.low:.1%} to {self.high:.1%})" if self.ended else ""
        return f"{self.runs} runs; {self.saved:.1%} of their steps saved; {self.ended} ended early{wrong}"


def outcome(table: pd.DataFrame) -> Outcome:
    """Returns the outcome of one replay, or of several whose tables were put together."""
    ended, wrong = int(table["stopped_at"].notna().sum()), int(table["wrong"].sum())
    low = high = float("nan")
    if ended:
        low, high = scipy.stats.binomtest(wrong, ended).proportion_ci(CONFIDENCE, method="wilson")
    saved = table["saved"].sum() / table["steps"].sum() if len(table) else 0.0
    return Outcome(len(table), ended, wrong, float(low), float(high), float(saved))
