"""Noisy linear regression (Raventos et al., 2023, arXiv 2306.15063): a task is a weight vector."""

import dataclasses

import gin
import jax

from gpicl_flax.bindings.kinds import NotNegative, Width
from gpicl_flax.errors import UsageError
from gpicl_flax.tasks.families.family import Sequences, TaskFamily
from gpicl_flax.tasks.targets import Normals, Numbers

_TARGETS = {"numbers": Numbers, "normals": Normals}


@gin.configurable
@dataclasses.dataclass(frozen=True, kw_only=True)
class NoisyLinearRegression(TaskFamily):
    """y = w . x + noise, with w ~ N(0, I_d) for a task, x ~ N(0, I_d) and noise ~ N(0, s^2) (Section 2 of that paper).

    The defaults are those of the paper, with an unbounded number of tasks. The task with an id is the same for any K.

    Attributes:
      dimensions: d, which is X.
      noise: s, the standard deviation of the noise.
      predicts: 'numbers': the model predicts y, and the loss is the squared error; 'normals': it predicts mean and
        variance of y, and the loss is the normal's negative log likelihood in nats.
      sequence_length: T, the examples of one sequence.
      task_batch_size: B, the sequences of one training step.
      num_tasks: K, the tasks that training draws from, uniformly with replacement; None: every sequence has a new one.
      sequences_per_task: sequences of one step that share a task.

    Raises:
      UsageError: a value is out of its range.
    """

    dimensions: Width = 8
    noise: NotNegative = 0.5
    predicts: str = "numbers"
    sequence_length: Width = 16
    task_batch_size: Width = 256

    def __post_init__(self):
        super().__post_init__()
        if self.predicts not in _TARGETS:
            names = ", ".join(_TARGETS)
            raise UsageError(f"{self.gin_name}.predicts must be one of {names}, not {self.predicts!r}")

    @property
    def num_features(self) -> int:
        return self.dimensions

    @property
    def targets(self) -> Numbers:
        """Numbers with the variance d + s^2."""
        return _TARGETS[self.predicts](variance=self.dimensions + self.noise**2)

    def draw_task(self, key: jax.Array) -> jax.Array:
        """Returns w [d]."""
        return jax.random.normal(key, (self.dimensions,))

    def draw_sequence(self, task: jax.Array, key: jax.Array) -> Sequences:
        """Returns x [T, d] and y [T]."""
        keys = jax.random.split(key)
        inputs = jax.random.normal(keys[0], (self.sequence_length, self.dimensions))
        noise = self.noise * jax.random.normal(keys[1], (self.sequence_length,))
        return Sequences(inputs, (inputs * task).sum(axis=-1) + noise)
