"""The settings of the training loop."""

import dataclasses
from types import NoneType

import gin

from gpicl_flax.errors import UsageError, check_positive_integers, check_types
from gpicl_flax.training.curriculum import Curriculum
from gpicl_flax.training.early_stop import BY_UNSEEN_TASKS, EarlyStop
from gpicl_flax.training.probes.diagnostics import Diagnostics
from gpicl_flax.training.probes.telemetry import Telemetry


@gin.configurable
@dataclasses.dataclass(frozen=True)
class Training:
    """How long and in which portions a run trains.

    Attributes:
      steps: training steps of the whole run; 0: only meta-test what the run starts with.
      steps_per_dispatch: steps that one call of the device makes; their mean is one row of metrics.jsonl.
      accumulation: parts that a batch is split into to save memory; the result is that of the whole batch.
      checkpoint_period: steps between checkpoints, a multiple of steps_per_dispatch; the last step is always saved.
      checkpoint_seconds: after so long without a checkpoint there is one as well; None: never.
      keep_checkpoints: newest checkpoints that are kept.
      curriculum: what of the tasks changes with the step; None, as in the paper: nothing.
      diagnostics: what is measured along training on unseen tasks, and when; None: nothing.
      telemetry: when gradients and updates are measured; None: never. They take at least two steps_per_dispatch.
      early_stop: when a run ends before its last step; None, as in the paper: never.

    Raises:
      UsageError: a value is out of its range, or the steps do not divide.
    """

    steps: int = 50_000
    steps_per_dispatch: int = 10
    accumulation: int = 1
    checkpoint_period: int = 1000
    checkpoint_seconds: float | None = 600.0
    keep_checkpoints: int = 2
    curriculum: Curriculum | None = None
    diagnostics: Diagnostics | None = None
    telemetry: Telemetry | None = None
    early_stop: EarlyStop | None = None

    def __post_init__(self):
        check_positive_integers(self, "steps_per_dispatch", "accumulation", "checkpoint_period", "keep_checkpoints")
        check_types(self, steps=int, checkpoint_seconds=(int, float, NoneType), curriculum=(Curriculum, NoneType))
        check_types(self, diagnostics=(Diagnostics, NoneType), telemetry=(Telemetry, NoneType))
        check_types(self, early_stop=(EarlyStop, NoneType))
        if self.early_stop and self.early_stop.judged_by == BY_UNSEEN_TASKS and self.diagnostics is None:
            raise UsageError("EarlyStop.judged_by = 'unseen' needs Training.diagnostics = @Diagnostics()")
        if self.checkpoint_seconds is not None and self.checkpoint_seconds <= 0:
            raise UsageError(f"Training.checkpoint_seconds must be positive or None, not {self.checkpoint_seconds}")
        if self.steps < 0:
            raise UsageError(f"Training.steps must not be negative, but is {self.steps}")
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
        """Whether `diagnostics`, or `telemetry`, come with the dispatch that ends with `step`.

        They do where it reaches a multiple of their period. None: that of a run that had ended before.
        """
        if getattr(self, name) is None or step is None:
            return False
        period = getattr(self, name).period
        return step // period > (step - self.steps_per_dispatch) // period
