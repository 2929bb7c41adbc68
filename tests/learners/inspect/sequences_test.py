"""Drawn sequences, and their pictures of predictions, attention and state, against numpy and against the meta-test."""

import dataclasses
import html

import jax
import numpy as np
import pytest
import scipy.special
from flax import linen as nn

from gpicl_flax.analysis.figures import attention, learning_curve, predictions, state_path
from gpicl_flax.analysis.figures.chart import COLOURS
from gpicl_flax.config import parse
from gpicl_flax.learners import learner
from gpicl_flax.learners.evaluate import evaluate_learner
from gpicl_flax.learners.inspect import sequences
from gpicl_flax.learners.inspect.attention import weights
from gpicl_flax.learners.inspect.predictions import probabilities
from gpicl_flax.learners.inspect.states import states
from gpicl_flax.runs.run import Run
from gpicl_flax.tasks.datasets.images import grey_values
from gpicl_flax.tasks.projections import input_space

COUNT, T = 5, 12


@pytest.fixture(scope="module")
def shipped():
    """The Transformer that comes with the package, on shorter sequences."""
    loaded = learner.load()
    tasks = dataclasses.replace(loaded.run.tasks, sequence_length=T)
    return dataclasses.replace(loaded, run=dataclasses.replace(loaded.run, tasks=tasks))


@pytest.fixture(scope="module")
def drawn(shipped):
    return sequences.unseen(shipped, shipped.run.tasks.load("digits"), COUNT)


@pytest.fixture
def untrained(small_bindings):
    """(bindings) -> a learner with fresh parameters, and sequences for it."""

    def make(*bindings):
        config = parse([], [*small_bindings, "Training.steps = 0", *bindings])
        run, _ = config.resolve(Run)
        rngs = {"params": jax.random.key(0), "learner": jax.random.key(1)}
        variables = jax.jit(run.model.init)(rngs, np.zeros((1, 6, 16), np.float32), np.zeros((1, 6), np.int32))
        dataset = run.tasks.load()
        projection = run.tasks.projection_spec(dataset.stored_shape).as_run_info()
        run_info = {"gpicl_flax": "0.0.1", "projection": projection, "steps": 0}
        made = learner.Learner(config.text, run_info, nn.unbox(variables).get("params", {}), run)
        return made, sequences.unseen(made, dataset, COUNT)

    return make


def test_predictions_along_the_sequences_are_those_of_the_meta_test(shipped, drawn):
    evaluation = evaluate_learner(shipped, ["digits"], COUNT)
    (curve,) = (curve for curve in evaluation["curves"] if curve["tasks"] == "unseen")
    table = predictions.numbers(probabilities(shipped, drawn), drawn.labels, 0)
    np.testing.assert_allclose(table["accuracy"], curve["accuracy"])
    losses = -np.log(np.take_along_axis(probabilities(shipped, drawn), drawn.labels[..., None], axis=-1)[..., 0])
    np.testing.assert_allclose(losses.mean(axis=0), curve["loss"], rtol=1e-4)
    assert (evaluation["step"], curve["num_sequences"]) == (shipped.run_info["steps"], COUNT)
    (axes,) = learning_curve.chart_of_evaluation(evaluation, model="Transformer", num_classes=10).figure.axes
    assert any(np.array_equal(line.get_ydata(), curve["accuracy"]) for line in axes.get_lines())


def test_images_are_test_examples_and_labels_a_permutation_of_theirs(shipped, drawn):
    dataset = shipped.run.tasks.load("digits")
    grow = input_space.growth(dataset.stored_shape, dataset.input_shape)
    test_images = np.asarray(grow(grey_values(dataset.test.inputs)))
    permutations = []
    for images, labels in zip(drawn.images.reshape(COUNT, T, -1), drawn.labels, strict=True):
        distances = np.abs(images[:, None] - test_images).max(axis=-1)
        nearest = distances.argmin(axis=1)
        assert distances.min(axis=1).max() < 1e-5 and len(set(nearest)) == T
        pairs = set(zip(dataset.test.labels[nearest].tolist(), labels.tolist(), strict=True))
        assert len(pairs) == len({old for old, _ in pairs}) == len({new for _, new in pairs})
        permutations.append(frozenset(pairs))
    assert len(set(permutations)) == COUNT
    assert drawn.images.shape == (COUNT, T, 14, 14)


def test_attention_is_the_softmax_of_queries_and_keys_in_numpy(shipped, drawn):
    looks = weights(shipped, drawn)
    assert list(looks) == ["block_0", "block_1", "block_2"]
    for heads in looks.values():
        assert heads.shape == (COUNT, 8, T, T)
        np.testing.assert_allclose(heads.sum(axis=-1), 1, rtol=1e-5)
        assert (heads[..., ~np.tri(T, dtype=bool)] == 0).all()
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), jax.device_get(shipped.params))
    inputs, one_hot = drawn.inputs.astype(np.float64), np.eye(10)[drawn.labels]
    previous = [np.pad(x, ((0, 0), (1, 0), (0, 0)))[:, :-1] for x in (inputs, one_hot)]
    x = np.concatenate([inputs, *previous], axis=-1) @ params["embedding"]["kernel"] + params["embedding"]["bias"]
    x = x + params["positions"][:T]
    block = params["block_0"]
    x = (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-5)
    x = x * block["attention_norm"]["scale"] + block["attention_norm"]["bias"]
    query, key = (
        np.einsum("btm,mnk->bntk", x, block[n]["kernel"]) + block[n]["bias"][:, None] for n in ("query", "key")
    )
    logits = query @ key.swapaxes(-1, -2) / np.sqrt(query.shape[-1])
    logits[..., ~np.tri(T, dtype=bool)] = -np.inf
    np.testing.assert_allclose(looks["block_0"], scipy.special.softmax(logits, axis=-1), atol=1e-4)


def test_the_share_of_attention_on_the_right_label_is_a_sum_over_tokens():
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=(2, 7))
    looks = np.tril(rng.random((2, 2, 7, 7)))
    table = attention.numbers({"block_0": looks}, labels).set_index(["layer", "head", "position"])
    for head in range(2):
        for t in range(7):
            found = [[i for i in range(1, t + 1) if labels[b, i - 1] == labels[b, t]] for b in range(2)]
            share = np.mean([looks[b, head, t, tokens].sum() for b, tokens in enumerate(found)])
            uniform = np.mean([len(tokens) / (t + 1) for tokens in found])
            assert tuple(table.loc["block_0", head, t]) == pytest.approx((share, uniform))


def test_the_picture_of_predictions_shows_every_example_and_what_was_said_of_it(shipped, drawn):
    guesses = probabilities(shipped, drawn)
    names = {"model": "Transformer", "base_dataset": "digits"}
    chart = predictions.draw(guesses, drawn.labels, drawn.images, **names, index=2)
    above, below = chart.figure.subfigs
    shown = [axes for axes in above.axes if axes.images]
    assert len(shown) == T
    guesses = guesses[2]
    for t, axes in enumerate(shown):
        np.testing.assert_array_equal(axes.images[0].get_array(), drawn.images[2, t])
        label, prediction = drawn.labels[2, t], guesses[t].argmax()
        right = label == prediction
        assert axes.get_title() == (f"{label}" if right else f"{label} ({prediction})")
        assert axes.title.get_color() == COLOURS[2 if right else 1]
    (axes,) = below.axes
    right, wrong, mean = axes.get_lines()
    assert len(right.get_xdata()) + len(wrong.get_xdata()) == T and len(mean.get_xdata()) == T
    of_label = guesses[range(T), drawn.labels[2]]
    np.testing.assert_allclose(sorted([*right.get_ydata(), *wrong.get_ydata()]), sorted(of_label))
    assert "<img" in chart._repr_html_() and html.escape(chart.caption) in chart._repr_html_()


def test_maps_of_attention_are_of_the_sequence_that_is_asked_for(shipped, drawn):
    looks = weights(shipped, drawn)
    chart = attention.draw(looks, drawn.labels, 3)
    maps = {axes.get_title(): axes.images[0].get_array() for axes in chart.figure.axes if axes.images}
    seen = np.tri(T, dtype=bool)
    assert len(maps) > 1
    for title, shown in maps.items():
        layer, head = title.split(", head ")
        np.testing.assert_array_equal(shown[seen], looks[layer][3, int(head)][seen])
        assert np.isnan(np.asarray(shown.filled(np.nan))[~seen]).all()


@pytest.mark.slow
def test_a_recurrent_state_is_what_the_logits_are_read_from(untrained):
    lstm, drawn = untrained("Run.model = @LSTM()", "LSTM.hidden_size = 4")
    path = states(lstm, drawn)
    assert path.shape == (COUNT, 7, 2 * 4) and (path[:, 0] == 0).all()
    read_out = jax.device_get(lstm.params["logits"])
    logits, pairs = lstm.forward(drawn.inputs, drawn.labels)
    assert pairs == {}
    np.testing.assert_allclose(path[:, 1:, :4] @ read_out["kernel"] + read_out["bias"], logits, atol=1e-5)


def test_moves_and_similarities_are_those_of_vectors():
    path = np.random.default_rng(0).normal(size=(3, 5, 6))
    path[:, 0] = 0
    moved, alike = state_path.moves(path), state_path.similarity(path)
    norm = np.linalg.norm
    for t in range(4):
        for b in range(3):
            mean = np.mean([norm(state) for state in path[b, 1:]])
            assert moved[b, t] == pytest.approx(norm(path[b, t + 1] - path[b, t]) / mean)
        for s in range(4):
            pairs = [(path[b, t + 1], path[b, s + 1]) for b in range(3)]
            assert alike[t, s] == pytest.approx(np.mean([u @ v / norm(u) / norm(v) for u, v in pairs]))


@pytest.mark.slow
@pytest.mark.parametrize(
    "bindings",
    [("Run.model = @LSTM()", "LSTM.hidden_size = 8"), ("Run.model = @OnlineSGD()",)],
    ids=["LSTM", "OnlineSGD"],
)
def test_a_model_of_fixed_state_has_a_path_and_no_attention(untrained, bindings):
    made, drawn = untrained(*bindings)
    path = states(made, drawn)
    moved = state_path.draw(path, made.name).figure.axes[0].get_lines()[0].get_ydata()
    np.testing.assert_allclose(moved, np.median(state_path.moves(path), axis=0))
    assert (moved > 0).all() and attention.draw(
        weights(made, drawn), drawn.labels
    ).caption == "Needs a model with attention."


def test_a_transformer_has_no_state_of_fixed_size_and_an_mlp_neither(shipped, drawn, untrained):
    for made, sequence in ((shipped, drawn), untrained("Run.model = @MLP()", "MLP.hidden_size = 8")):
        chart = state_path.draw(states(made, sequence), made.name)
        assert chart.figure is None and chart.caption == "Needs a model whose state has a fixed size."
        assert "Needs" in chart._repr_html_() and "<img" not in chart._repr_html_()
