import numpy as np
import scipy.stats

from gpicl_flax.tasks.targets import Classes, Normals, Numbers

RNG = np.random.default_rng(0)
TARGETS = RNG.normal(size=(3, 4)).astype(np.float32)


def test_the_loss_of_a_number_is_the_squared_error():
    predictions = RNG.normal(size=(3, 4, 1)).astype(np.float32)
    measured = Numbers(variance=2.0).measure(predictions, TARGETS)
    assert measured.keys() == {"loss"}
    np.testing.assert_allclose(measured["loss"], (predictions[..., 0].astype(float) - TARGETS) ** 2, rtol=1e-5)


def test_the_loss_of_a_normal_is_the_negative_log_density():
    predictions = RNG.normal(size=(3, 4, 2)).astype(np.float32)
    measured = Normals(variance=2.0).measure(predictions, TARGETS)
    mean, log_variance = np.moveaxis(predictions.astype(np.float64), -1, 0)
    expected = -scipy.stats.norm.logpdf(TARGETS, mean, np.exp(log_variance / 2))
    np.testing.assert_allclose(measured["loss"], expected, rtol=1e-5)
    np.testing.assert_allclose(measured["squared_error"], (mean - TARGETS) ** 2, rtol=1e-5)


def test_classes_have_cross_entropy_and_accuracy():
    logits = RNG.normal(size=(3, 4, 5)).astype(np.float32)
    labels = RNG.integers(5, size=(3, 4))
    measured = Classes(5).measure(logits, labels)
    log_probabilities = logits - np.log(np.exp(logits.astype(np.float64)).sum(-1, keepdims=True))
    expected = -np.take_along_axis(log_probabilities, labels[..., None], -1)[..., 0]
    np.testing.assert_allclose(measured["loss"], expected, rtol=1e-5)
    np.testing.assert_array_equal(measured["accuracy"], logits.argmax(-1) == labels)


def test_chance_is_the_best_prediction_that_knows_nothing_of_the_task():
    targets = np.random.default_rng(0).normal(0, 2**0.5, (1, 200_000)).astype(np.float32)
    for kind, best in ((Numbers(variance=2.0), [0.0]), (Normals(variance=2.0), [0.0, np.log(2.0)])):
        predictions = np.broadcast_to(np.float32(best), (*targets.shape, len(best)))
        measured = kind.measure(predictions, targets)
        np.testing.assert_allclose(measured["loss"].mean(), kind.chance_loss, rtol=0.01)
        np.testing.assert_allclose(measured[kind.score].mean(), kind.chance_score, rtol=0.01)
    uniform = Classes(5).measure(np.zeros((1, 4, 5), np.float32), np.arange(4)[None])
    np.testing.assert_allclose(uniform["loss"], Classes(5).chance_loss, rtol=1e-6)
