"""The targets of a mixture of task families: their chance level is the weighted mean of that of the parts.

For each kind of targets, the threshold of the plateau is a linear function of the chance loss (see `records.plateau`),
so that it is the weighted mean of the parts' thresholds, too.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from gpicl_flax.errors import UsageError
from gpicl_flax.tasks.targets import Classes, Normals, Numbers, Targets


@dataclasses.dataclass(frozen=True)
class MixedClasses(Classes):
    """Classes of families that differ in their number of them; C is the largest.

    Attributes:
      mean_chance_loss, mean_chance_score: the weighted means of those of the parts.
    """

    mean_chance_loss: float = dataclasses.field(kw_only=True)
    mean_chance_score: float = dataclasses.field(kw_only=True)

    @property
    def chance_loss(self) -> float:
        return self.mean_chance_loss

    @property
    def chance_score(self) -> float:
        return self.mean_chance_score

    def as_run_info(self) -> dict[str, Any]:
        return super().as_run_info() | self._level_as_run_info()


@dataclasses.dataclass(frozen=True)
class MixedNormals(Normals):
    """Numbers whose distribution is predicted, of families that differ in their variance.

    Attributes:
      mean_chance_loss: the weighted mean of that of the parts.
    """

    mean_chance_loss: float = dataclasses.field(kw_only=True)

    @property
    def chance_loss(self) -> float:
        return self.mean_chance_loss


def mixed_targets(names: Sequence[str], parts: Sequence[Targets], shares: Sequence[float]) -> Targets:
    """Returns the targets of a mixture.

    Args:
      names: those of the parts, for messages.
      parts: their targets.
      shares: their weights, which sum to 1.

    Raises:
      UsageError: the parts do not have one kind of targets.
    """
    first = parts[0]
    for name, part in zip(names, parts, strict=True):
        if part.predicts != first.predicts:
            raise UsageError(
                f"Mixture.families must have one kind of targets, but {names[0]} has {first.predicts} and {name} has "
                f"{part.predicts}"
            )
    loss, score = (
        sum(share * value for share, value in zip(shares, values, strict=True))
        for values in ([part.chance_loss for part in parts], [part.chance_score for part in parts])
    )
    if all(part == first for part in parts):
        return first
    if isinstance(first, Classes):
        most = max(part.num_classes for part in parts)
        return MixedClasses(most, mean_chance_loss=loss, mean_chance_score=score)
    return MixedNormals(score, mean_chance_loss=loss) if isinstance(first, Normals) else Numbers(score)
