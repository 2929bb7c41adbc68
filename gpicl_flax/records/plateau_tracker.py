"""Follows the status of a run along the rows of its log: while it trains, and again when it is resumed."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from gpicl_flax.records import phase, plateau
from gpicl_flax.records.criteria import Criteria


@dataclasses.dataclass
class PlateauTracker:
    """The status of a run according to its log so far, all plain JSON.

    Attributes:
      num_classes: the number of classes of a task; None if its targets are numbers.
      num_tasks: the number of tasks that the run trains on; None: unbounded.
      exit_step: the step at which it left its plateau by its training loss, or None.
      unseen_exit_step: the same by its loss on unseen tasks.
      unseen_losses: the last of these losses, whose mean determines the plateau.
      gain: the last diagnosed gain on unseen tasks (see `Criteria.gain`); None: none since the plateau was left.
      targets: for numbers, and for a mixture of numbers of classes, the entry of run.json that describes them.
    """

    num_classes: int | None
    num_tasks: int | None
    exit_step: int | None = None
    unseen_exit_step: int | None = None
    unseen_losses: list[float] = dataclasses.field(default_factory=list)
    gain: float | None = None
    targets: dict[str, Any] | None = None

    @classmethod
    def from_run_info(cls, run_info: Mapping[str, Any]) -> "PlateauTracker":
        """Returns that of a run before its first row, given its run.json."""
        return cls(run_info.get("num_classes"), run_info.get("num_tasks"), targets=run_info.get("targets"))

    @property
    def criteria(self) -> Criteria:
        """How the run is judged."""
        return Criteria.required({"num_classes": self.num_classes, "targets": self.targets})

    def follow(self, step: int, loss_ema: float, diagnostics: dict[str, Any] | None) -> None:
        """Takes the next row: its average loss, and its diagnostics if it has some."""
        if self.exit_step is None:
            self.exit_step = plateau.plateau_exit_step([step], [loss_ema], self.criteria.threshold)
            self.gain = None  # a gain on the plateau says nothing about the time after it
        if diagnostics is None:
            return
        # At the first position of an unseen task nothing is known yet: predictions are as good as chance.
        criteria = self.criteria
        score = diagnostics.get(f"unseen_{criteria.score}_last")
        self.gain = None if score is None else criteria.gain(score)
        loss = diagnostics["unseen_loss"]
        if loss is None or not math.isfinite(loss):
            return
        self.unseen_losses = [*self.unseen_losses, loss][-plateau.UNSEEN_MEASUREMENTS :]
        if self.unseen_exit_step is None:
            self.unseen_exit_step = plateau.plateau_exit_step([step], [self.unseen_average], criteria.threshold)

    @property
    def unseen_average(self) -> float:
        """The mean of the last losses on unseen tasks; NaN before the first."""
        return plateau.mean_of_last(self.unseen_losses)

    @property
    def phase(self) -> str | None:
        """The phase, as far as it is known."""
        return phase.classify(self.exit_step is not None, self.gain, self.num_tasks or math.inf)
