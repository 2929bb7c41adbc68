"""The axes of the data's distribution (Chan et al. 2022, arXiv 2205.05055), as settings of families with classes."""

import dataclasses
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from gpicl_flax.bindings.kinds import Decay, NotNegative, Range
from gpicl_flax.errors import UsageError
from gpicl_flax.tasks.class_distribution import SHORTEST_BURST, ClassDistribution
from gpicl_flax.tasks.families.data import Batch
from gpicl_flax.tasks.families.family import TaskFamily

_AXES = ("burstiness", "zipf_exponent", "label_noise", "fixed_labels")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassAxes(TaskFamily):
    """A family of classes whose distribution can be changed along axes. All are off by default.

    Attributes:
      burstiness: the probability that a sequence is bursty, see `ClassDistribution`.
      zipf_exponent: a; class c has a probability in proportion to (c + 1)^-a. 0: all classes are equally frequent.
      label_noise: the probability that an example has a uniformly random label in place of its own, both where tokens
        show it and as a target.
      fixed_labels: the share of the classes that are the same in all tasks. They are the first round(fixed_labels C).
      query_only: count the last position alone in loss and metrics, as Chan et al. do; otherwise all positions count.

    Raises:
      UsageError: a value is out of its range, or the sequences are too short or have too few classes for bursts.
    """

    burstiness: Annotated[float, Range(0, 1)] = 0.0
    zipf_exponent: NotNegative = 0.0
    label_noise: Decay = 0.0
    fixed_labels: Annotated[float, Range(0, 1)] = 0.0
    query_only: bool = False

    def __post_init__(self):
        super().__post_init__()
        name, num_classes = self.gin_name, self.targets.num_classes
        if self.burstiness and self.sequence_length < SHORTEST_BURST:
            raise UsageError(
                f"{name}.burstiness = {self.burstiness:g} needs {name}.sequence_length of at least {SHORTEST_BURST}, "
                f"not {self.sequence_length}"
            )
        if self.burstiness and num_classes < 3:
            raise UsageError(
                f"{name}.burstiness = {self.burstiness:g} needs {name}.num_classes of at least 3, not {num_classes}"
            )
        if self.fixed_labels and not self.num_fixed:
            raise UsageError(
                f"{name}.fixed_labels = {self.fixed_labels:g} is no class of {num_classes}: raise it to "
                f"{1 / num_classes:g}, or set it to 0"
            )

    @property
    def class_distribution(self) -> ClassDistribution:
        """The distribution of the classes of a sequence."""
        return ClassDistribution(self.targets.num_classes, self.burstiness, self.zipf_exponent)

    @property
    def num_fixed(self) -> int:
        """The number of classes that are the same in all tasks."""
        return round(self.fixed_labels * self.targets.num_classes)

    @property
    def has_axes(self) -> bool:
        """Whether sequences differ from uniform, independent and true labels of tasks that share nothing."""
        return any(getattr(self, name) for name in _AXES)

    def counted(self, shape: tuple[int, ...]) -> jax.Array | None:
        """Returns the positions [..., T] that count, as bool; None: all. Called inside a program."""
        is_query = jnp.arange(self.sequence_length) == self.sequence_length - 1
        return jnp.broadcast_to(is_query, shape) if self.query_only else None

    def axes_run_info(self) -> dict[str, Any]:
        """Returns the entry of run.json that names the axes that are on; nothing if none is."""
        values = {name: getattr(self, name) for name in (*_AXES, "query_only") if getattr(self, name)}
        return {"class_distribution": values} if values else {}

    def run_info(self) -> dict[str, Any]:
        return super().run_info() | self.axes_run_info()

    def batch_of_classes(self, split: Any, rng: np.random.Generator, classes: np.ndarray) -> Batch:
        """Returns what a batch says of sequences besides their tasks, given their classes [B, T] int32."""
        raise NotImplementedError
