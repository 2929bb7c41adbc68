"""The classifier as scikit-learn and its users meet it."""

import itertools
import pathlib
import pickle
import re
import shutil

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import scipy.special
import sklearn.datasets
from flax import linen as nn
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.kernel_approximation import RBFSampler
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from gpicl_flax import InContextClassifier
from gpicl_flax.config import parse
from gpicl_flax.learners import learner
from gpicl_flax.records.run_folder import RunFolder
from gpicl_flax.runs.execute import RunSpec, execute
from gpicl_flax.runs.run import Run
from gpicl_flax.runtime.preemption import StopRequest

ROOT = pathlib.Path(__file__).parents[2]
ORDERS = [list(order) for order in itertools.permutations(range(3))]


# check_array_api_input skips itself: it needs SCIPY_ARRAY_API=1 and torch, and arrays of numpy are all that is
# promised.
@parametrize_with_checks([InContextClassifier(n_estimators=2)])
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def iris():
    X, y = sklearn.datasets.load_iris(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(X))
    return X[order], np.array(["setosa", "versicolor", "virginica"])[y[order]]


@pytest.fixture(scope="module")
def fitted(iris):
    X, y = iris
    return InContextClassifier(random_state=0).fit(X[:60], y[:60])


@pytest.fixture(scope="module")
def one_member(iris):
    X, y = iris
    return InContextClassifier(n_estimators=1, random_state=0).fit(X[:60], y[:60])


@pytest.fixture(scope="module")
def lstm(small_bindings, tmp_path_factory):
    """The folder of a run on digits of 4x4."""
    folder = RunFolder(tmp_path_factory.mktemp("lstm") / "run")
    bindings = ["Run.model = @LSTM()", "LSTM.hidden_size = 4", "Training.steps = 10", "Training.checkpoint_period = 10"]
    with StopRequest() as stop:
        execute([RunSpec.from_config(parse([], [*small_bindings, *bindings]), folder)], stop)
    return folder


@pytest.fixture
def untrained(small_bindings, tmp_path):
    """(bindings) -> the folder of an untrained learner."""

    def save(*bindings):
        config = parse([], [*small_bindings, "Training.steps = 0", *bindings])
        run, _ = config.resolve(Run)
        inputs, labels = np.zeros((1, 6, 16), np.float32), np.zeros((1, 6), np.int32)
        rngs = {"params": jax.random.key(0), "learner": jax.random.key(0)}
        params = nn.unbox(jax.jit(run.model.init)(rngs, inputs, labels)).get("params", {})
        folder = RunFolder(tmp_path / "untrained")
        learner.Learner(config.text, {"gpicl_flax": "0.0.1"}, params, run).save(folder)
        return folder.path

    return save


def test_it_learns(fitted, iris):
    X, y = iris
    assert list(fitted.classes_) == ["setosa", "versicolor", "virginica"]
    assert fitted.score(X[60:], y[60:]) > 0.75
    probabilities = fitted.predict_proba(X[60:])
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert (fitted.classes_[probabilities.argmax(axis=1)] == fitted.predict(X[60:])).all()


@pytest.mark.slow
def test_random_fourier_features_help_where_features_are_few(iris):
    """As the README says of iris."""
    X, y = iris
    lift = RBFSampler(gamma="scale", n_components=500, random_state=0)
    lifted = make_pipeline(StandardScaler(), lift, InContextClassifier(random_state=0)).fit(X[:60], y[:60])
    assert lifted.score(X[60:], y[60:]) > 0.9


def test_scale_and_order_of_the_features_do_not_matter_much(fitted, iris):
    X, y = iris
    other = InContextClassifier(random_state=0).fit(1000 + X[:60] * [1e-6, 1, 1e3, 1e6], y[:60])
    queries = 1000 + X[60:] * [1e-6, 1, 1e3, 1e6]
    np.testing.assert_allclose(other.predict_proba(queries), fitted.predict_proba(X[60:]), atol=1e-3)


@hypothesis.settings(deadline=None, derandomize=True, max_examples=10)
@hypothesis.given(st.lists(st.integers(-305, 305), min_size=4, max_size=4))
def test_features_of_any_finite_size_predict_the_same(iris, one_member, exponents):
    X = iris[0] * [10.0**exponent for exponent in exponents]
    scaled = clone(one_member).fit(X[:60], iris[1][:60])
    np.testing.assert_allclose(scaled.predict_proba(X), one_member.predict_proba(iris[0]), atol=1e-5)


@hypothesis.settings(deadline=None, derandomize=True, max_examples=20)
@hypothesis.given(st.floats(allow_nan=False, allow_infinity=False), st.integers(0, 3))
def test_an_outlier_gives_probabilities_or_is_named(iris, one_member, value, column):
    X = iris[0][60:63].copy()
    X[1, column] = value
    if abs(value) <= 1e10:
        np.testing.assert_allclose(one_member.predict_proba(X).sum(axis=1), 1)
    elif abs(value) >= 1e20:
        with pytest.raises(ValueError, match=rf"X\[1, {column}\] is .*, more than 1e\+15 standard deviations"):
            one_member.predict(X)


def test_what_is_not_finite_is_never_returned(fitted, iris):
    X, y = iris
    frame = pd.DataFrame(X, columns=list("abcd"))
    named = InContextClassifier(n_estimators=1, random_state=0).fit(frame[:9], y[:9])
    with pytest.raises(ValueError, match=r"X\[0, 1\] \(feature 'b'\) is 1e\+30"):
        named.predict(frame[:1].assign(b=1e30))
    damaged = pickle.loads(pickle.dumps(fitted))
    damaged._context = jax.tree.map(lambda x: x * np.nan if x.dtype == np.float32 else x, damaged._context)
    with pytest.raises(ValueError, match=r"X\[0\]: the Transformer in use gives no finite probabilities"):
        damaged.predict(X)


@pytest.mark.slow
def test_pixels_keep_their_differences_in_scale():
    """Each scaled by itself, the nearly constant ones at the border of an image are noise as loud as its middle."""
    rng = np.random.default_rng(0)
    y = np.arange(200) % 4
    middle = rng.standard_normal((4, 16))[y] + rng.standard_normal((200, 16))
    X = np.concatenate([middle, 0.01 * rng.standard_normal((200, 84))], axis=1)
    own, shared = (InContextClassifier(random_state=0, shared_scale=s).fit(X[:40], y[:40]) for s in (False, True))
    assert shared.score(X[40:], y[40:]) > own.score(X[40:], y[40:]) + 0.1
    moved = clone(shared).fit(5 + 3 * X[:40], y[:40])
    np.testing.assert_allclose(moved.predict_proba(5 + 3 * X[40:]), shared.predict_proba(X[40:]), atol=1e-4)


def test_queries_do_not_see_each_other_nor_the_batch_size(fitted, iris):
    X, _ = iris
    together = fitted.predict_proba(X)
    np.testing.assert_allclose(np.concatenate([fitted.predict_proba(x[None]) for x in X[:5]]), together[:5], atol=1e-6)
    small = clone(fitted).set_params(batch_size=7).fit(X[:60], iris[1][:60])
    np.testing.assert_allclose(small.predict_proba(X), together, atol=1e-6)


def test_any_number_of_features(iris):
    _, y = iris
    rng = np.random.default_rng(0)
    for num_features in (1, 500):
        X = (y == "setosa")[:, None] + 0.1 * rng.normal(size=(len(y), num_features))
        classifier = InContextClassifier(random_state=0).fit(X[:50], y[:50] == "setosa")
        assert classifier.score(X[50:], y[50:] == "setosa") > 0.95


def test_a_stream_of_examples_is_a_context(iris, fitted):
    X, y = iris
    stream = InContextClassifier(random_state=0)
    for start in range(0, 60, 20):
        stream.partial_fit(X[start : start + 20], y[start : start + 20], classes=np.unique(y))
    np.testing.assert_allclose(stream.predict_proba(X), fitted.predict_proba(X), atol=1e-6)
    with pytest.raises(ValueError, match="not the same as in the first call"):
        stream.partial_fit(X, y, classes=["setosa"])
    with pytest.raises(ValueError, match="'other'.* not among classes"):
        stream.partial_fit(X[:1], ["other"])
    assert list(InContextClassifier().partial_fit(X[:1], ["a"]).partial_fit(X[1:2], ["b"]).classes_) == ["a", "b"]


def test_classes_without_examples_have_a_probability(iris):
    X, y = iris
    known = InContextClassifier(random_state=0).partial_fit(X[:9], y[:9], classes=[*np.unique(y), "zebra"])
    assert known.predict_proba(X).shape == (150, 4)


def test_one_class_is_predicted(iris):
    X, _ = iris
    classifier = InContextClassifier().fit(X[:5], ["only"] * 5)
    assert (classifier.predict_proba(X) == 1).all() and set(classifier.predict(X)) == {"only"}


@pytest.mark.slow
def test_members_average_out_their_projections(iris):
    X, y = iris

    def spread(n_estimators):
        seeds = range(4)
        fits = [InContextClassifier(n_estimators=n_estimators, random_state=s).fit(X[:20], y[:20]) for s in seeds]
        return np.std([fit.predict_proba(X[60:]) for fit in fits], axis=0).mean()

    assert spread(16) < 0.6 * spread(1)


@pytest.mark.slow
def test_a_context_longer_than_that_of_training_is_spread_over_members(lstm, monkeypatch):
    X, y = np.random.default_rng(0).normal(size=(30, 16)), np.arange(30) % 2
    read, encode = [], learner.Learner.encode

    def encode_and_note(self, inputs, *others, **options):
        read.append(inputs)
        return encode(self, inputs, *others, **options)

    monkeypatch.setattr(learner.Learner, "encode", encode_and_note)
    classifier = InContextClassifier(lstm.path, n_estimators=6, random_state=0).fit(X, y)
    [inputs] = read
    assert inputs.shape == (6, 5, 16)  # sequences of six, one of them the query
    # The 16 x 16 projections of standardised features can be undone, member by member, up to the order of examples.
    standardised = (X - X.mean(axis=0)) / X.std(axis=0)
    undone = [x @ np.linalg.inv(own) for x, own in zip(inputs, classifier._projections, strict=True)]
    distances = np.linalg.norm(np.concatenate(undone)[:, None] - standardised, axis=-1)
    assert sorted(distances.argmin(axis=1)) == list(range(30)) and distances.min(axis=1).max() < 0.1


def test_it_works_inside_scikit_learn(iris):
    X, y = iris
    pipeline = make_pipeline(MinMaxScaler(), InContextClassifier(random_state=0))
    assert cross_val_score(pipeline, X, y, cv=2).mean() > 0.75
    search = GridSearchCV(InContextClassifier(random_state=0), {"n_estimators": [1, 16]}, cv=2).fit(X, y)
    assert search.best_score_ > 0.75


def test_data_frames_and_lists(iris, fitted):
    X, y = iris
    frame = pd.DataFrame(X, columns=list("abcd"))
    classifier = InContextClassifier(random_state=0).fit(frame[:60], pd.Series(y[:60], dtype="category"))
    np.testing.assert_allclose(classifier.predict_proba(frame), fitted.predict_proba(X), atol=1e-6)
    with pytest.raises(ValueError, match="feature names"):
        classifier.predict(frame[["b", "a", "c", "d"]])
    assert InContextClassifier().fit(X[:60].tolist(), y[:60].tolist()).predict(X[:3].tolist()).shape == (3,)


def test_it_pickles_and_clones(fitted, iris, untrained):
    X, y = iris
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))
    assert not hasattr(clone(fitted), "classes_")
    # ... also a learner with an optimiser inside, which is made of functions
    online = InContextClassifier(untrained("Run.model = @OnlineSGD()"), random_state=0).fit(X, y)
    np.testing.assert_allclose(pickle.loads(pickle.dumps(online)).predict_proba(X), online.predict_proba(X))


@pytest.mark.slow
@pytest.mark.parametrize("model", ["MAML", "VSML"])
def test_any_kind_of_learner(untrained, iris, model):
    X, y = iris
    classifier = InContextClassifier(untrained(f"Run.model = @{model}()"), random_state=0).fit(X, y)
    assert classifier.model_.name == model
    assert np.isfinite(classifier.predict_proba(X)).all()


def test_a_run_folder_predicts_as_its_model_does(lstm, iris):
    """One member whose projection and labels are known, against the forward pass."""
    X, y = iris
    classifier = InContextClassifier(lstm.path, n_estimators=1, random_state=0).fit(X[:3], ["a", "b", "c"])
    [projection], [labels], run = classifier._projections, classifier._labels, classifier.model_.run
    standardised = (X - X[:3].mean(axis=0)) / X[:3].std(axis=0)
    sequences = np.float32([[*standardised[order], standardised[9]] @ projection for order in ORDERS])
    own = np.int32([[*labels[order], 0] for order in ORDERS])
    logits = run.model.apply({"params": classifier.model_.params}, sequences, own)[:, -1]
    expected = scipy.special.softmax(np.asarray(logits)[:, labels], axis=1)
    # It read the three examples in one of their six orders.
    found = np.abs(expected - classifier.predict_proba(X[9:10])).max(axis=1)
    assert found.min() < 1e-5 < np.sort(found)[1]


def test_bad_data_is_refused_as_everywhere_in_scikit_learn(fitted, iris):
    X, y = iris
    with pytest.raises(NotFittedError):
        InContextClassifier().predict(X)
    for bad, words in (
        (np.where(np.arange(4) == 1, np.nan, X), "NaN"),
        (np.where(np.arange(4) == 1, np.inf, X), "infinity"),
        (X[:0], "0 sample"),
        (X[:, :0], "0 feature"),
        (X[0], "Expected 2D array"),
    ):
        for method in (fitted.predict, lambda bad: InContextClassifier().fit(bad, y[: len(bad)])):
            with pytest.raises(ValueError, match=words):
                method(bad)
    with pytest.raises(TypeError, match="[Ss]parse"):
        InContextClassifier().fit(scipy.sparse.csr_array(X), y)
    with pytest.raises(ValueError, match="X has 3 features, but InContextClassifier is expecting 4"):
        fitted.predict(X[:, :3])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        InContextClassifier().fit(X, y[:9])
    with pytest.raises(ValueError, match="11 classes, and the Transformer in use tells 10 apart"):
        InContextClassifier().fit(X, np.arange(150) % 11)
    with pytest.raises(ValueError, match="shared_scale must be True or False, not 'pixels'"):
        InContextClassifier(shared_scale="pixels").fit(X, y)
    for name in ("n_estimators", "batch_size"):
        with pytest.raises(ValueError, match=f"{name} must be a positive integer, not 0"):
            InContextClassifier(**{name: 0}).fit(X, y)


def test_a_folder_that_is_no_learner_is_refused(iris, lstm, untrained, tmp_path):
    def refused(path, words):
        with pytest.raises(ValueError, match=words) as caught:
            InContextClassifier(path).fit(*iris)
        assert "\n" not in str(caught.value)

    refused(tmp_path, "is not a run folder: it has no config.gin")
    refused(3, "model_path must be a path or None, not 3")

    newer = RunFolder(shutil.copytree(lstm.path, tmp_path / "newer"))
    newer.run_info.write_text(newer.run_info.read_text().replace('"gpicl_flax": "0.', '"gpicl_flax": "7.'))
    refused(newer.path, "was made by gpicl_flax 7.* newer than this one")

    empty = RunFolder(shutil.copytree(lstm.path, tmp_path / "empty"))
    shutil.rmtree(empty.checkpoints)
    refused(empty.path, "holds no checkpoint yet")

    damaged = RunFolder(shutil.copytree(lstm.path, tmp_path / "damaged"))
    for file in pathlib.Path(damaged.checkpoints).rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    refused(damaged.path, "no checkpoint in .* can be read")

    refused(untrained("Run.model = @MLP()", "MLP.hidden_size = 4"), "the MLP in use reads no context")


def test_an_export_is_the_same_learner(lstm, iris, tmp_path):
    X, y = iris
    half, whole = RunFolder(tmp_path / "half"), RunFolder(tmp_path / "whole")
    learner.load(lstm.path).save(half, "float16")
    learner.load(lstm.path).save(whole)
    own, same, rounded = (
        InContextClassifier(path, random_state=0).fit(X, y).predict_proba(X)
        for path in (lstm.path, whole.path, half.path)
    )
    np.testing.assert_array_equal(same, own)
    assert 0 < np.abs(rounded - own).max() < 1e-2

    parameters = whole.path / learner.PARAMETERS
    intact = parameters.read_bytes()
    for damaged, words in (
        (b"", "is damaged"),
        (intact[: len(intact) // 2], "is damaged"),
        ((learner.SHIPPED / learner.PARAMETERS).read_bytes(), "does not hold the parameters of the LSTM"),
    ):
        parameters.write_bytes(damaged)
        with pytest.raises(ValueError, match=words):
            InContextClassifier(whole.path).fit(X, y)


def test_what_is_shipped_is_small():
    assert sum(file.stat().st_size for file in learner.SHIPPED.iterdir()) < 5e6


def test_the_snippet_of_the_readme(capsys):
    [snippet] = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    exec(snippet, {})
    shown = re.findall(r"# ([\d.]+)$", snippet, re.M)
    printed = capsys.readouterr().out.split()
    assert len(shown) == len(printed) > 0
    np.testing.assert_allclose(list(map(float, printed)), list(map(float, shown)), atol=0.02)
