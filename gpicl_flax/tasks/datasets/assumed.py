"""The examples that base datasets are taken to have where none is read: those published, or of the input shape."""

import math
from typing import NamedTuple

from gpicl_flax.tasks.datasets.listing import PAPER
from gpicl_flax.tasks.datasets.sources import NUM_DIGITS_TEST
from gpicl_flax.tasks.projections import input_space

# A sentence for users.
ASSUMPTION = (
    "No base dataset is read: MNIST and its like, CIFAR-10, SVHN and digits are taken as published, any other as\n"
    "60,000 examples of the input shape."
)
_OTHER_EXAMPLES = 60_000


class AssumedExamples(NamedTuple):
    """The training examples of a run, known or assumed.

    Attributes:
      number: how many.
      stored_shape: the shape in which each is stored.
      dtype: uint8 for images, float32 for features.
    """

    number: int = 0
    stored_shape: tuple[int, ...] = ()
    dtype: str = "float32"

    @property
    def nbytes(self) -> int:
        """The memory that they take with their labels; 0: there are none."""
        return self.number * (math.prod(self.stored_shape) * (1 if self.dtype == "uint8" else 4) + 4)


def assumed_examples(name: str, input_shape: tuple[int, ...]) -> AssumedExamples:
    """Returns the training examples of base dataset `name` at an input shape."""
    dtype = "uint8" if len(input_shape) == 3 else "float32"
    if name == "digits":
        shape, number = (8, 8, 1), 1_797 - NUM_DIGITS_TEST
    elif name in PAPER:
        number, _, text = PAPER[name]
        shape = tuple(map(int, text.split("x")))
    else:
        return AssumedExamples(_OTHER_EXAMPLES, input_shape, dtype)
    return AssumedExamples(number, input_space.stored_shape(shape, input_shape), dtype)
