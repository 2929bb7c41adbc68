"""The plateau-aware stop: ends a run that, by the rule saved with it, will not leave its plateau within its steps.

The paper does not use it. The decision is a pure function of the rule (`records.plateau_rule`) and the rows of the log,
so that an interrupted run stops where it would have stopped without the interruption.
"""

from collections.abc import Sequence
from typing import Any

from gpicl_flax.records import matching_scores
from gpicl_flax.records.plateau_rule import PlateauRule
from gpicl_flax.records.plateau_tracker import PlateauTracker


def on_plateau(tracker: PlateauTracker) -> bool:
    """Returns whether a run has left its plateau neither by its training loss nor by its loss on unseen tasks."""
    return tracker.exit_step is None and tracker.unseen_exit_step is None


def with_score(
    scores: Sequence[Sequence[float]], step: int, diagnostics: dict[str, Any] | None
) -> list[Sequence[float]]:
    """Returns the last pairs of a step and a matching score, with that of this row if it has one."""
    score = matching_scores.highest(diagnostics) if diagnostics else None
    return [*scores, *([[step, score]] if score is not None else [])][-matching_scores.WINDOW :]


def leave_probability(
    rule: PlateauRule, scores: Sequence[Sequence[float]], step: int, steps: int, tracker: PlateauTracker
) -> float | None:
    """Returns the probability by which a run ends after a row with diagnostics; None: it goes on.

    It ends if it is on its plateau, its matching score, growing as fast as it does now or as its like did, will not
    reach one at which its like left, and its like of which the same could be said rarely left.

    Args:
      rule: the rule of the run.
      scores: its last matching scores, up to this row, see `with_score`.
      step: the step of the row.
      steps: those of the whole run.
      tracker: the tracker of the run, up to this row.
    """
    probability = rule.probability(step)
    if step < rule.from_step or probability >= 1 - rule.confidence or not on_plateau(tracker):
        return None
    growth = matching_scores.growth(scores)
    return None if growth is None or rule.grows_in_time(growth, steps - step) else probability
