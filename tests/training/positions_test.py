import jax.numpy as jnp
import numpy as np

from gpicl_flax.training import positions

LOSSES = np.arange(12.0).reshape(3, 4)
CORRECT = LOSSES % 2 == 0


def summary(counted=None, last=3):
    found = positions.summary({"loss": jnp.array(LOSSES), "accuracy": jnp.array(CORRECT)}, counted, last)
    return {name: float(value) for name, value in found.items()}


def test_all_positions_count_unless_something_else_is_said():
    assert summary() == {
        "loss": LOSSES.mean(),
        "loss_last": LOSSES[:, 3].mean(),
        "accuracy": 0.5,
        "accuracy_first": np.float32(2 / 2 * CORRECT[:, 0].mean()),
        "accuracy_last": CORRECT[:, 3].mean(),
    }
    shorter = summary(last=jnp.int32(1))
    assert shorter["loss"] == LOSSES[:, :2].mean() and shorter["loss_last"] == LOSSES[:, 1].mean()


def test_positions_that_do_not_count_are_left_out_and_each_sequence_has_its_own_ends():
    counted = np.array([[0, 1, 1, 0], [0, 0, 1, 1], [1, 0, 0, 0]], bool)
    found = summary(jnp.array(counted))
    np.testing.assert_allclose(found["loss"], LOSSES[counted].mean(), rtol=1e-6)
    np.testing.assert_allclose(found["loss_last"], np.mean([LOSSES[0, 2], LOSSES[1, 3], LOSSES[2, 0]]), rtol=1e-6)
    np.testing.assert_allclose(found["accuracy_first"], np.mean([CORRECT[0, 1], CORRECT[1, 2], CORRECT[2, 0]]))
    np.testing.assert_array_equal(positions.last_of(jnp.array(LOSSES), jnp.array(counted)), [2, 7, 8])
    np.testing.assert_array_equal(positions.last_of(jnp.array(LOSSES), None), LOSSES[:, 3])
