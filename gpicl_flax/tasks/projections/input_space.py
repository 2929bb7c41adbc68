"""The space of a run's inputs: how stored images grow to the input shape, and a basis with few coordinates for them.

Growing, by bilinear interpolation and by repeating a grey channel, is linear and acts on one axis at a time. So the
grown images of a stored shape lie in a space with at most as many dimensions as the stored image has pixels. That space
has an orthonormal basis that is a product of one small basis for each axis, the same for all images and datasets of
that shape.
"""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

Shape = tuple[int, ...]


class Coordinates(flax.struct.PyTreeNode):
    """The map from stored examples to their coordinates in an orthonormal basis of the input space.

    Attributes:
      stored_shape: the stored shape of the examples.
      matrices: for each axis of a stored image the matrix [to, from] that acts on it, or None for the identity.
      order: [X] int32, the places of the basis vectors among the products of those of the axes; None: in order.
    """

    stored_shape: Shape = flax.struct.field(pytree_node=False)
    matrices: tuple[jax.Array | np.ndarray | None, ...]
    order: jax.Array | np.ndarray | None = None

    def __call__(self, inputs: jax.Array | np.ndarray) -> jax.Array | np.ndarray:
        """Maps inputs [..., stored features] to coordinates [..., R]."""
        if all(matrix is None for matrix in self.matrices):
            return inputs
        *batch, _ = inputs.shape
        x = inputs.reshape(-1, *self.stored_shape)
        for matrix in reversed(self.matrices):
            if matrix is not None:
                # Rounded to at least float32 precision, because products of coordinates are summed over many of them.
                x = jnp.matmul(x, matrix.T, precision="highest")
            x = jnp.moveaxis(x, -1, 1)  # the last axis becomes the first one, so after all axes the order is restored
        x = x.reshape(*batch, -1)
        return x if self.order is None else x[..., self.order]


def stored_shape(shape: Shape, input_shape: Shape) -> Shape:
    """Returns the shape in which an image of `shape` is stored: at most the input shape, but never grown to it."""
    if len(input_shape) == 1:
        return input_shape
    return *map(min, shape[:2], input_shape[:2]), shape[2]


def growth(stored: Shape, input_shape: Shape) -> Coordinates:
    """Returns the map that grows images of shape `stored` to the input shape: coordinates in the basis of pixels."""
    return coordinates(stored, input_shape, basis=input_shape)


def coordinates(stored: Shape, input_shape: Shape, *, basis: Shape, whole: bool = False) -> Coordinates:
    """Returns the map to coordinates of images that are stored in the shape `stored`.

    Their number R is prod(stored) if that is the basis, otherwise X.

    Args:
      stored: the shape of stored images.
      input_shape: the shape that they grow to.
      basis: the stored shape whose grown images the first prod(basis) basis vectors span; the others complete the
        basis.
      whole: return all X coordinates, even where those after the first prod(basis) are zero.
    """
    own = stored == basis and not whole
    matrices = []
    for axis, (size, to) in enumerate(zip(stored, input_shape, strict=True)):
        grow = _growth_matrix(axis, size, to)
        matrix = grow if basis[axis] == to else _axis_basis(axis, basis[axis], to).T @ grow
        matrix = matrix[: basis[axis]] if own else matrix
        matrices.append(None if size == to == basis[axis] else matrix.astype(np.float32))
    if own or basis == input_shape:
        return Coordinates(stored, tuple(matrices))
    within = np.ones(input_shape, bool)
    for axis, size in enumerate(basis):
        within &= np.expand_dims(np.arange(input_shape[axis]) < size, tuple(a for a in range(len(basis)) if a != axis))
    return Coordinates(stored, tuple(matrices), np.argsort(~within.reshape(-1), kind="stable").astype(np.int32))


def _growth_matrix(axis: int, size: int, to: int) -> np.ndarray:
    """Returns [to, size]: bilinear interpolation along height and width, repetition along the channels."""
    if size == to:
        return np.eye(to)
    if axis == 2:
        return np.ones((to, size))
    with jax.ensure_compile_time_eval():
        resized = jax.image.resize(jnp.eye(size), (to, size), "bilinear", antialias=False)
    return np.asarray(resized, np.float64)


def _axis_basis(axis: int, size: int, to: int) -> np.ndarray:
    """Returns [to, to]: an orthonormal basis whose first `size` vectors span what grows from `size`."""
    vectors, triangle = np.linalg.qr(_growth_matrix(axis, size, to), mode="complete")
    vectors[:, :size] *= np.where(np.diag(triangle) < 0, -1, 1)  # libraries differ in the sign
    return vectors
