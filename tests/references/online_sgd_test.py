"""The SGD baseline against numpy float64 and against scikit-learn's online updates."""

import jax
import numpy as np
import optax
import pytest
from sklearn.neural_network import MLPClassifier

from gpicl_flax.errors import UsageError
from gpicl_flax.models import StateSize
from gpicl_flax.references import OnlineSGD
from gpicl_flax.tasks.families import Recall

C = 4


def predict(model, sequences, key=0):
    return np.asarray(jax.jit(model.apply)({}, *sequences, rngs={"learner": jax.random.key(key)}))


@pytest.fixture
def initial(monkeypatch):
    """Makes the baseline start all sequences from the same classifier, and returns it."""

    def fix(model):
        rng = np.random.default_rng(1)
        params = jax.tree.map(
            lambda x: 0.5 * rng.normal(size=x.shape).astype(np.float32),
            jax.device_get(model.initial_classifier(jax.random.key(0), 5)),
        )
        monkeypatch.setattr(OnlineSGD, "initial_classifier", lambda self, key, num_features: params)
        return params

    return fix


@pytest.mark.parametrize(
    "hidden_sizes", [*(pytest.param(sizes, marks=pytest.mark.slow) for sizes in ((), (6,))), (6, 7)]
)
@pytest.mark.parametrize(
    ("optimizer", "name", "settings"),
    [
        (optax.sgd(0.1), "SGD", (0.1,)),
        (optax.adam(0.02), "Adam", (0.02,)),
        (optax.adamw(0.02, weight_decay=0.3), "Adam", (0.02, 0.0, 0.3)),
    ],
)
def test_predictions_are_those_of_the_equations(sequences, reference, initial, hidden_sizes, optimizer, name, settings):
    model = OnlineSGD(num_classes=C, hidden_sizes=hidden_sizes, inner_optimizer=optimizer)
    params = reference.layers(initial(model))
    expected = [
        reference.learn(params, getattr(reference, name)(*settings), *sequence)
        for sequence in zip(*sequences, strict=True)
    ]
    np.testing.assert_allclose(predict(model, sequences), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("hidden_sizes", [(), (6,)])
@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_predictions_are_those_of_scikit_learn(sequences, reference, initial, hidden_sizes, solver):
    model = OnlineSGD(num_classes=C, hidden_sizes=hidden_sizes, inner_optimizer=getattr(optax, solver)(0.05))
    params = reference.layers(initial(model))
    inputs, labels = sequences[0][0].astype(np.float64), sequences[1][0]
    classifier = MLPClassifier(
        hidden_sizes, solver=solver, alpha=0.0, learning_rate_init=0.05, momentum=0.0, nesterovs_momentum=False
    )
    classifier.partial_fit(inputs[:1], labels[:1], classes=range(C))  # makes the arrays, which are then replaced
    classifier.coefs_ = [np.array(kernel, np.float64) for kernel, _ in params]
    classifier.intercepts_ = [np.array(bias, np.float64) for _, bias in params]
    del classifier._optimizer
    expected = []
    for x, label in zip(inputs[:, None], labels, strict=True):
        expected.append(classifier.predict_proba(x)[0])
        classifier.partial_fit(x, [label])
    probabilities = jax.nn.softmax(predict(model, sequences)[0])
    np.testing.assert_allclose(probabilities, expected, rtol=1e-3, atol=1e-4)


def test_every_sequence_begins_with_a_classifier_of_its_own():
    inputs, labels = np.ones((200, 2, 30), np.float32), np.zeros((200, 2), int)
    model = OnlineSGD()
    logits = predict(model, (inputs, labels))
    assert len(np.unique(logits[:, 0], axis=0)) == 200
    # 30 inputs of 1 with weights of standard deviation 0.88 / sqrt(30), without the bias
    np.testing.assert_allclose(logits[:, 0].std(), 0.8796, rtol=0.05)
    np.testing.assert_array_equal(predict(model, (inputs, labels)), logits)
    assert (predict(model, (inputs, labels), key=1) != logits).any()


def test_it_has_no_parameters_and_its_state_is_the_classifier():
    assert not OnlineSGD.is_meta_trained
    assert OnlineSGD().state_size(196, 100) == StateSize(paper=197 * 10, exact=197 * 10)
    plain = OnlineSGD(hidden_sizes=(32, 64), inner_optimizer=optax.sgd(0.1))
    assert plain.state_size(196, 100) == StateSize(*[197 * 32 + 33 * 64 + 65 * 10] * 2)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"hidden_sizes": (1, 2, 3)}, "up to two"),
        ({"hidden_sizes": (0,)}, "positive integers"),
        ({"hidden_sizes": 32}, "type list or tuple"),
        ({"inner_optimizer": "adam"}, "GradientTransformation"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, words):
    with pytest.raises(UsageError, match=words):
        OnlineSGD(**settings)


def test_hidden_sizes_can_be_a_list_as_gin_files_write_them():
    as_list, as_tuple = (OnlineSGD(hidden_sizes=sizes) for sizes in ([6, 7], (6, 7)))
    assert as_list.hidden_sizes == (6, 7) and hash(as_list.clone(inner_optimizer=as_tuple.inner_optimizer)) == hash(
        as_tuple
    )


@pytest.mark.parametrize(
    "optimizer", [pytest.param(optax.adam(0.02), marks=pytest.mark.slow), optax.adamw(0.02, weight_decay=0.3)]
)
def test_an_example_with_a_hidden_label_is_predicted_but_not_learned_from(optimizer):
    family = Recall(num_pairs=4, dimensions=5, num_classes=C)
    task_keys = jax.random.split(jax.random.key(0), 3)
    sequences = jax.vmap(lambda key: family.draw_sequence(family.draw_task(key), key))(task_keys)
    inputs, shown = np.array(sequences.inputs), np.array(sequences.shown_targets(sequences.targets))
    assert (shown[:, :4] >= 0).all() and (shown[:, 4:] == -1).all()
    model = OnlineSGD(num_classes=C, inner_optimizer=optimizer)
    logits = predict(model, (inputs, shown))
    # Each question is answered as if it were the first one after the pairs.
    for question in range(4, 8):
        order = [*range(4), question]
        np.testing.assert_allclose(predict(model, (inputs[:, order], shown[:, order]))[:, 4], logits[:, question], 1e-5)
    # The next example with a label is learned from again, as if nothing had been asked in between.
    again, without = (
        predict(
            model,
            (np.concatenate([inputs[:, :end], inputs[:, :2]], 1), np.concatenate([shown[:, :end], shown[:, :2]], 1)),
        )
        for end in (8, 4)
    )
    np.testing.assert_allclose(again[:, 8:], without[:, 4:], rtol=1e-5, atol=1e-6)
    # What is hidden makes a difference if it is shown.
    assert np.abs(predict(model, (inputs, np.array(sequences.targets)))[:, 5:] - logits[:, 5:]).max() > 1e-3
