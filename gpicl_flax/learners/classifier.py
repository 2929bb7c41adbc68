"""A scikit-learn classifier whose fit is a context: no gradient step, one pass of a meta-trained learner."""

import numbers
import os

import numpy as np
import scipy.special
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from gpicl_flax.errors import GpiclError
from gpicl_flax.learners import ensemble, learner


class InContextClassifier(ClassifierMixin, BaseEstimator):
    """Classifies by in-context learning: the training examples are the context of a meta-trained sequence model.

    Features are standardised, and projected at random to the inputs of the model, as the tasks were that it was
    trained on (Section 3.1 of the paper). The prediction is the mean of those of several members, which differ in
    projection, in the labels that stand for the classes, and in the order of the examples. Where there are more
    examples than the model was trained to read, each member reads as many as it can, stratified by class; together they
    read all of them if n_members times the model's length allows it, each equally often up to one.

    Args:
      checkpoint: a run folder, or what `gpicl export` made of one; None: the learner that comes with the package, a
        Transformer meta-trained on MNIST that reads 99 examples of up to 10 classes.
      n_members: members to average over.
      shared_scale: standardise all features by one mean and one scale, as is right for the pixels of an image;
        otherwise each by its own.
      batch_size: queries answered at once; fewer are filled up, so that one program fits all.
      random_state: of projections, labels and order.

    Attributes:
      classes_: names of the classes.
      n_features_in_, feature_names_in_: as everywhere in scikit-learn.
      learner_: the meta-trained model, a `learner.Learner`.
    """

    def __init__(self, checkpoint=None, *, n_members=16, shared_scale=False, batch_size=64, random_state=None):
        self.checkpoint = checkpoint
        self.n_members = n_members
        self.shared_scale = shared_scale
        self.batch_size = batch_size
        self.random_state = random_state

    def fit(self, X, y):
        """Takes X [n, features] and y [n], of any names, for the context.

        Raises:
          ValueError: the data or parameters cannot be used, or there are more classes than the model tells apart.
          TypeError: X is sparse.
        """
        return self._read(*self._start(X, y), classes=None)

    def partial_fit(self, X, y, classes=None):
        """Adds examples to the context; the context is read anew, and scaling and members take all of it into account.

        Args:
          classes: at the first call, the names of all classes that will come; None: those that have come so far.
        """
        if not hasattr(self, "classes_"):
            return self._read(*self._start(X, y), classes)
        X, y = self._validate(X, y, reset=False)
        if classes is not None and not np.array_equal(np.unique(classes), self.classes_):
            raise ValueError(f"classes = {list(classes)} is not the same as in the first call, {list(self.classes_)}")
        return self._read(np.concatenate([self._X, X]), np.concatenate([self._y, y]), self._announced)

    def predict_proba(self, X):
        """X [n, features] -> probabilities [n, classes], in the order of `classes_`."""
        check_is_fitted(self)
        X = self._inputs(validate_data(self, X, dtype=np.float64, reset=False))
        batches = (X[start : start + self.batch_size] for start in range(0, len(X), self.batch_size))
        return np.concatenate([self._answer(batch) for batch in batches])

    def predict(self, X):
        """X [n, features] -> the most probable class of each, [n]."""
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(axis=1)]

    def _start(self, X, y):
        for name in ("n_members", "batch_size"):
            value = getattr(self, name)
            if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be a positive integer, not {value!r}")
        if not isinstance(self.shared_scale, (bool, np.bool_)):
            raise ValueError(f"shared_scale must be True or False, not {self.shared_scale!r}")
        if not isinstance(self.checkpoint, (str, os.PathLike, type(None))):
            raise ValueError(f"checkpoint must be a path or None, not {self.checkpoint!r}")
        X, y = self._validate(X, y, reset=True)
        self._seed = check_random_state(self.random_state).randint(2**31)
        try:
            self.learner_ = learner.load(self.checkpoint)
        except GpiclError as error:
            raise ValueError(str(error)) from error
        return X, y

    def _validate(self, X, y, *, reset):
        X, y = validate_data(self, X, y, dtype=np.float64, reset=reset)
        check_classification_targets(y)
        return X, y

    def _read(self, X, y, classes):
        """Encodes the context of all members."""
        model, tasks = self.learner_, self.learner_.run.tasks
        names, labels = np.unique(y, return_inverse=True)
        if classes is not None:
            names = np.unique(classes)
            unknown = np.setdiff1d(y, names)
            if len(unknown):
                raise ValueError(f"y holds {list(unknown)}, which are not among classes = {list(names)}")
            labels = np.searchsorted(names, y)
        if len(names) > tasks.num_classes:
            raise ValueError(
                f"there are {len(names)} classes, and the {model.name} in use tells {tasks.num_classes} apart; "
                "meta-train one with a larger TaskDistribution.num_classes"
            )
        if not model.reads_context or model.max_context < 1:
            raise ValueError(f"the {model.name} in use reads no context: it was trained on single examples")
        self.classes_, self._announced, self._X, self._y = names, classes, X, y
        self._mean, self._scale = ensemble.standardize(X, shared=self.shared_scale)
        rng = np.random.default_rng(self._seed)
        self._projections = ensemble.projections(rng, self.n_members, X.shape[1], tasks.num_features) * model.input_rms
        self._labels = ensemble.label_permutations(rng, self.n_members, tasks.num_classes)[:, : len(names)]
        rows = ensemble.contexts(rng, labels, self.n_members, min(len(X), model.max_context))
        inputs = self._inputs(X)[rows] @ self._projections
        labels = np.take_along_axis(self._labels, labels[rows], axis=1)
        room = ((0, 0), (0, model.max_context - rows.shape[1]))
        self._context = model.encode(
            np.pad(inputs, (*room, (0, 0))), np.pad(labels, room), rows.shape[1], seed=self._seed
        )
        return self

    def _inputs(self, X):
        return ((X - self._mean) / self._scale).astype(np.float32)

    def _answer(self, X):
        """Standardised X [n, features], at most a batch, -> probabilities [n, classes]."""
        queries = np.pad(X, ((0, self.batch_size - len(X)), (0, 0))) @ self._projections
        logits = self.learner_.answer(self._context, queries)[:, : len(X)].astype(np.float64)
        own = np.take_along_axis(logits, self._labels[:, None], axis=2)
        return scipy.special.softmax(own, axis=2).mean(axis=0)
