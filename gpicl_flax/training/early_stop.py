"""Early stop: a run that stays on its plateau too long, or has converged, skips its remaining steps.

The paper does not use it.
"""

import dataclasses
import math
from collections.abc import Sequence

import gin

from gpicl_flax.bindings.kinds import Count, Decay, check_settings
from gpicl_flax.errors import UsageError
from gpicl_flax.records.plateau_tracker import PlateauTracker

PLATEAU, CONVERGED = "plateau", "converged"
BY_TRAINING_LOSS, BY_UNSEEN_TASKS = "training", "unseen"


@dataclasses.dataclass
class StopState:
    """When a run ends, according to its log so far; all plain JSON.

    Attributes:
      last_step: the last step that it makes.
      why: 'plateau' or 'converged' if it does not make all its steps; otherwise None.
      best, best_at: the loss that the next one is compared with, and its step. None: no comparison has begun.
      scores: the last matching scores, pairs of a step and a score, of a run with a `PlateauRule`; otherwise None.
      leave_probability: if that rule ends the run, its probability to leave the plateau in time; otherwise None.
    """

    last_step: int
    why: str | None = None
    best: float | None = None
    best_at: int | None = None
    scores: list[Sequence[float]] | None = None
    leave_probability: float | None = None


@gin.configurable
@dataclasses.dataclass(frozen=True)
class EarlyStop:
    """The rules by which a run ends before its last step.

    The decision depends only on the rows of metrics.jsonl, so that an interrupted run stops where it would have stopped
    without the interruption. When a row is available, the device is already busy with the next dispatch: that dispatch
    is the last. A run that stops is saved, meta-tested and DONE like any other. `stopped_early` in its last row gives
    the reason.

    Attributes:
      plateau_steps: a run that is still on its plateau after this many steps stops ('plateau'). None: never. The
        average of the training loss crosses the threshold some hundred steps later than the loss itself.
      converged_steps: a run that has left its plateau stops when its loss has not fallen by `min_improvement` over this
        many steps ('converged'). None: never.
      min_improvement: the smallest decrease that counts, as a fraction of the lowest loss so far.
      judged_by: 'training': the plateau and the loss are those of the average of the training loss. 'unseen': they are
        those of the mean of the last losses on unseen tasks. Under a bias or a curriculum only the latter is meaningful
        (see `records.plateau`).

    Raises:
      UsageError: a value is out of its range, or there is no rule.
    """

    plateau_steps: Count | None = None
    converged_steps: Count | None = None
    min_improvement: Decay = 0.01
    judged_by: str = BY_TRAINING_LOSS

    def __post_init__(self):
        check_settings(self)
        if self.plateau_steps is None and self.converged_steps is None:
            raise UsageError("EarlyStop needs EarlyStop.plateau_steps or EarlyStop.converged_steps")
        if self.judged_by not in (BY_TRAINING_LOSS, BY_UNSEEN_TASKS):
            raise UsageError(f"EarlyStop.judged_by must be 'training' or 'unseen', not {self.judged_by!r}")

    def reason(
        self, stop_state: StopState, step: int, tracker: PlateauTracker, loss_ema: float, diagnosed: bool
    ) -> str | None:
        """Returns why a run stops after this row of its log, or None. Called with every row.

        Args:
          stop_state: keeps the loss that later ones are compared with.
          tracker: the tracker of the run, up to this row.
          loss_ema: the average loss of this row.
          diagnosed: whether this row holds diagnostics.
        """
        by_unseen = self.judged_by == BY_UNSEEN_TASKS
        exit_step = tracker.unseen_exit_step if by_unseen else tracker.exit_step
        if exit_step is None:
            stands = self.plateau_steps is not None and step >= self.plateau_steps
            return PLATEAU if stands else None
        loss = tracker.unseen_average if by_unseen else loss_ema
        if self.converged_steps is None or not math.isfinite(loss) or by_unseen and not diagnosed:
            return None
        if stop_state.best is None or loss < stop_state.best * (1 - self.min_improvement):
            stop_state.best, stop_state.best_at = loss, step
        assert stop_state.best_at is not None  # it is set together with `best`
        return CONVERGED if step - stop_state.best_at >= self.converged_steps else None
