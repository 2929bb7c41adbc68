"""How each tensor of a model scales with width and depth: muP with the depth rule of CompleteP.

The rules are those of Table 8 of Yang et al. (2022, arXiv 2203.03466) for width, and of Table 1 of Dey et al. (2025,
arXiv 2505.01618, alpha = 1) for depth, weight decay and Adam's epsilon. Nothing here names a tensor: its role follows
from its shapes at two widths. Models apply what concerns their function, the initialiser and the multiplier; training
applies the rest.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
from flax import linen as nn

STANDARD, MUP = PARAMETRIZATIONS = ("standard", "mup")
HIDDEN, INPUT, OUTPUT, VECTOR = "hidden", "input", "output", "vector-like"

Path = tuple[str, ...]  # the names that lead to a tensor in the tree of parameters


@dataclasses.dataclass(frozen=True)
class TensorScale:
    """The scaling of one tensor from the base size to the size of its model. At the base size all factors are one.

    Attributes:
      role: 'hidden' if fan-in and fan-out grow with the width, 'input' if only fan-out grows, 'output' if only fan-in
        grows, else 'vector-like'.
      fan_in: the fan-in over the one at the base width.
      fan_out: the same of the fan-out, or of the number of matrices or numbers where it is that which grows.
      depth: the number of blocks over the one at the base depth, for a tensor of a residual branch; else 1.
    """

    role: str
    fan_in: float = 1.0
    fan_out: float = 1.0
    depth: float = 1.0

    @property
    def init(self) -> float:
        """The factor on initial values, whose variance is 1 / fan-in without it. An output has that of the base."""
        return self.fan_in**0.5 if self.role == OUTPUT else 1.0

    @property
    def multiplier(self) -> float:
        """The factor on the tensor in the forward pass."""
        return 1 / self.fan_in if self.role == OUTPUT else 1.0

    @property
    def rate(self) -> float:
        """The factor on the learning rate of Adam."""
        return 1 / self.fan_in if self.role == HIDDEN else 1.0

    @property
    def decay(self) -> float:
        """The factor on AdamW's weight decay: the learning rate times the decay is that of the base."""
        return 1 / self.rate

    @property
    def epsilon(self) -> float:
        """The factor on Adam's epsilon, which is how the gradient of an entry scales.

        The read-out's multiplier makes all gradients small, and the units of a layer share one. A tensor of a fixed
        size sums over them, and has gradients of the same size at any width.
        """
        return 1 / ((self.fan_in if self.role == OUTPUT else self.fan_out) * self.depth)

    @property
    def is_one(self) -> bool:
        """Whether the tensor is as at the base."""
        return self.fan_in == self.fan_out == self.depth == 1


def compare(tree: Any, base: Any, depth: Callable[[Path], float] = lambda path: 1.0) -> dict[Path, TensorScale]:
    """Returns the scaling of each tensor, by its path.

    Args:
      tree, base: the parameters, or their shapes, of a model at its own width and at the base width, in flax's boxes
        with the logical names of axes.
      depth: path -> `TensorScale.depth`.
    """
    own, at_base = flatten(tree), flatten(base)
    return {path: _scale(leaf, at_base[path], depth(path)) for path, leaf in own.items()}


def _scale(leaf: Any, base: Any, depth: float) -> TensorScale:
    batch, fan_in, fan_out = (own / other for own, other in zip(*_fans(leaf, base), strict=True))
    if fan_in != 1:
        return TensorScale(HIDDEN if fan_out != 1 else OUTPUT, fan_in, fan_out * batch, depth)
    is_matrix = len(_features(leaf, base)[0]) > 1
    return TensorScale(INPUT if is_matrix and fan_out != 1 else VECTOR, 1.0, fan_out * batch, depth)


def _fans(leaf: Any, base: Any) -> list[tuple[int, int, int]]:
    """Returns (number of matrices, fan-in, fan-out) of a tensor at both widths."""
    fans = []
    for sizes in _features(leaf, base):
        *batch, fan_in = sizes[:-1] or [1]
        fans.append((math.prod(batch), fan_in, sizes[-1] if sizes else 1))
    return fans


def _features(leaf: Any, base: Any) -> tuple[list[int], list[int]]:
    """Returns the sizes of a tensor's axes at both widths, as a matrix has them: inputs before outputs.

    The axes `heads` and `kv` are one, where they follow one another. An axis of size one at both widths is none.
    """
    shapes = nn.unbox(leaf).shape, nn.unbox(base).shape
    names = leaf.names if isinstance(leaf, nn.Partitioned) else (None,) * len(shapes[0])
    found, before = [], None
    for name, size, base_size in zip(names, *shapes, strict=True):
        if before == "heads" and name == "kv":
            found[-1] = found[-1][0] * size, found[-1][1] * base_size
        else:
            found.append((size, base_size))
        before = name
    found = [pair for pair in found if pair != (1, 1)]
    return [size for size, _ in found], [size for _, size in found]


def flatten(tree: Any) -> dict[Path, Any]:
    """Returns the tensors of a tree of parameters by their paths, in their boxes if they have any."""
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda leaf: isinstance(leaf, nn.Partitioned))
    return {_names(path): leaf for path, leaf in leaves}


def multiply(tree: Any, factors: Mapping[Path, float]) -> Any:
    """Returns a tree like that of the parameters, in which the tensors of `factors` are multiplied by these.

    A tensor whose factor is one stays as it is, bit for bit.
    """

    def one(path, leaf):
        factor = factors.get(_names(path), 1.0)
        return leaf if factor == 1 else leaf * factor

    return jax.tree_util.tree_map_with_path(one, tree)


def _names(path: tuple[Any, ...]) -> Path:
    """Returns the names of a path of JAX, without the boxes on it."""
    return tuple(entry.key for entry in path if isinstance(entry, jax.tree_util.DictKey))
