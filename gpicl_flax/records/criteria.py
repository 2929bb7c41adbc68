"""The numbers by which a run is judged: the loss that ends its plateau, and its gain within a sequence.

Training and analysis share this definition. Training takes them from the targets of the task family, analysis from
run.json, which describes the same.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from gpicl_flax.errors import Damaged
from gpicl_flax.records import plateau, schemas

_NEEDED = {"predicts", "score", "unit", "chance_loss", "chance_score"}


class Criteria(NamedTuple):
    """How a run is judged.

    Attributes:
      threshold: the averaged loss below which the run has left its plateau.
      chance_loss: the loss of the best prediction that learns nothing from the context.
      score: the quantity that shows learning within a sequence: accuracy, or for numbers the squared error, which is
        called `loss` if it is the loss.
      chance_score: the score of that prediction.
      unit: the unit of the loss, for people.
    """

    threshold: float
    chance_loss: float
    score: str
    chance_score: float
    unit: str

    @classmethod
    def from_run_info(cls, run_info: Mapping[str, Any]) -> "Criteria | None":
        """Reads them from run.json, or the same entries of another record; None: it does not have them."""
        classes, targets = run_info.get("num_classes"), run_info.get("targets")
        if isinstance(classes, int) and classes > 0 and targets is None:
            return cls(plateau.threshold(classes), math.log(classes), "accuracy", 1 / classes, "nats")
        if not isinstance(targets, Mapping) or not _NEEDED <= targets.keys():
            return None
        chance = targets["chance_loss"]
        if targets["predicts"] == "classes":  # of a mixture, whose parts differ in their number of classes
            threshold = plateau.threshold_of_classes(chance)
        else:
            threshold = plateau.threshold_of_numbers(chance, in_nats=targets["predicts"] == "normals")
        return cls(threshold, chance, targets["score"], targets["chance_score"], targets["unit"])

    @classmethod
    def required(cls, run_info: Mapping[str, Any]) -> "Criteria":
        """Reads them from run.json; raises Damaged if it does not have them."""
        found = cls.from_run_info(run_info)
        if found is None:
            raise Damaged(f"run.json is damaged: it does not say what the targets are; {schemas.RUN_INFO.remedy}")
        return found

    def gain(self, last: float, first: float | None = None) -> float:
        """Returns what is learned within a sequence.

        It is the gain of accuracy, or for numbers the share of the chance's squared error that is gone.

        Args:
          last: the score at the last position.
          first: that at the first; None: that of chance, which is right on unseen tasks.
        """
        first = self.chance_score if first is None else first
        return last - first if self.score == "accuracy" else (first - last) / self.chance_score


def curve_gain(curve: Mapping[str, Any], criteria: Criteria | None) -> float | None:
    """Returns what is gained along a curve of a meta-test; None if the run does not say how its numbers are judged.

    Where one position alone counts, after examples that do not, it is what is gained over chance.
    """
    if criteria and criteria.score in curve and len(curve.get("positions", ())) == 1:
        return criteria.gain(curve[criteria.score][0])
    if "accuracy" in curve:
        return curve["accuracy"][-1] - curve["accuracy"][0]
    scores = curve.get(criteria.score) if criteria else None
    return criteria.gain(scores[-1], scores[0]) if criteria and scores else None
