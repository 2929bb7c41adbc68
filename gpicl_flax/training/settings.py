"""The settings of the training loop."""

import dataclasses

import gin

from gpicl_flax.bindings.kinds import Count, CountOrZero, check_settings
from gpicl_flax.errors import UsageError
from gpicl_flax.training.curriculum import Curriculum
from gpicl_flax.training.early_stop import BY_UNSEEN_TASKS, EarlyStop
from gpicl_flax.training.probes.diagnostics import Diagnostics
from gpicl_flax.training.probes.telemetry import Telemetry


@gin.configurable
@dataclasses.dataclass(frozen=True)
class Training:
    """How long a run trains, and in which portions.

    Attributes:
      steps: training steps of the whole run; 0: only meta-test the initial parameters.
      steps_per_dispatch: steps that one call of the device makes. Their mean is one row of metrics.jsonl.
      accumulation: parts that a batch is split into to save memory. The result is that of the whole batch.
      checkpoint_period: steps between checkpoints, a multiple of steps_per_dispatch. The last step is always saved.
      checkpoint_seconds: the longest time without a checkpoint, after which one is saved as well; None: no limit.
      keep_checkpoints: how many of the newest checkpoints are kept.
      curriculum: the properties of tasks that change with the step; None, as in the paper: nothing.
      diagnostics: the measurements on unseen tasks along training; None: nothing.
      telemetry: when gradients and updates are measured; None: never. It needs at least two steps_per_dispatch.
      early_stop: when a run ends before its last step; None, as in the paper: never.

    Raises:
      UsageError: a value is out of its range, or the steps do not divide.
    """

    steps: CountOrZero = 50_000
    steps_per_dispatch: Count = 10
    accumulation: Count = 1
    checkpoint_period: Count = 1000
    checkpoint_seconds: float | None = 600.0
    keep_checkpoints: Count = 2
    curriculum: Curriculum | None = None
    diagnostics: Diagnostics | None = None
    telemetry: Telemetry | None = None
    early_stop: EarlyStop | None = None

    def __post_init__(self):
        check_settings(self)
        if self.early_stop and self.early_stop.judged_by == BY_UNSEEN_TASKS and self.diagnostics is None:
            raise UsageError("EarlyStop.judged_by = 'unseen' needs Training.diagnostics = @Diagnostics()")
        if self.checkpoint_seconds is not None and self.checkpoint_seconds <= 0:
            raise UsageError(f"Training.checkpoint_seconds must be positive or None, not {self.checkpoint_seconds}")
        for name in ("steps", "checkpoint_period"):
            if getattr(self, name) % self.steps_per_dispatch:
                raise UsageError(
                    f"Training.{name} = {getattr(self, name)} is not a multiple of "
                    f"Training.steps_per_dispatch = {self.steps_per_dispatch}"
                )
        if self.telemetry and self.steps_per_dispatch == 1:
            raise UsageError(
                "Training.telemetry compares steps of a dispatch: Training.steps_per_dispatch must be at least 2"
            )

    def is_due(self, name: str, step: int | None) -> bool:
        """Returns whether `diagnostics`, or `telemetry`, are due in the dispatch that ends with `step`.

        They are due where a dispatch reaches a multiple of their period. A step of None belongs to a run that had ended
        before.
        """
        if getattr(self, name) is None or step is None:
            return False
        period = getattr(self, name).period
        return step // period > (step - self.steps_per_dispatch) // period
