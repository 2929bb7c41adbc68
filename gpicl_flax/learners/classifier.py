"""A scikit-learn classifier whose fit is a context: one pass of a meta-trained learner, without any gradient step."""

import numbers
import os
import warnings

import numpy as np
import scipy.special
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from gpicl_flax.errors import GpiclError
from gpicl_flax.learners import ensemble, learner
from gpicl_flax.learners.standardizer import MAX_STANDARDISED, Standardizer, first_outlier

_PACKAGE = (os.path.dirname(os.path.dirname(__file__)),)  # a warning shows the line of the caller
_DEPRECATED = "deprecated"  # the value of a former parameter that is not given
_FORMER_NAMES = {"model_path": "checkpoint", "n_estimators": "n_members"}


class InContextClassifier(ClassifierMixin, BaseEstimator):
    """Classifies by in-context learning: the training examples are the context of a meta-trained sequence model.

    The classifier standardises the features and projects them at random to the inputs of the model, as in the tasks
    that it was trained on (Section 3.1 of the paper). The prediction is the mean over several estimators. They differ
    in their projection, in the labels that represent the classes, and in the order of the examples. If there are more
    examples than the model was trained to read, each estimator reads as many as it can, stratified by class. Together
    they read all of them if n_estimators times the model's length allows it, and the numbers of estimators that read
    two examples differ by at most one.

    Args:
      model_path: a run folder, or an export of one by `gpicl export`; None: the learner in the package, a Transformer
        meta-trained on MNIST that reads 99 examples of up to 10 classes.
      n_estimators: the number of estimators to average over.
      shared_scale: standardise all features by one mean and one scale, which is right for the pixels of an image;
        otherwise each feature has its own.
      batch_size: the number of queries answered at once; a smaller batch is padded, so that one program fits all.
      random_state: seed of projections, labels and order.
      trusted_modules: names of modules that the run folder may import, for models that are not of this package. A
        module that is already imported is trusted. Nothing else that a run folder names is ever imported or called.
      checkpoint: the former name of model_path; removed in version 0.3.
      n_members: the former name of n_estimators; removed in version 0.3.

    Attributes:
      classes_: names of the classes.
      n_features_in_, feature_names_in_: as everywhere in scikit-learn.
      model_: the meta-trained model, a `learner.Learner`.
    """

    def __init__(
        self,
        model_path=None,
        *,
        n_estimators=16,
        shared_scale=False,
        batch_size=64,
        random_state=None,
        trusted_modules=(),
        checkpoint=_DEPRECATED,
        n_members=_DEPRECATED,
    ):
        self.model_path = model_path
        self.n_estimators = n_estimators
        self.shared_scale = shared_scale
        self.batch_size = batch_size
        self.random_state = random_state
        self.trusted_modules = trusted_modules
        self.checkpoint = checkpoint
        self.n_members = n_members

    @property
    def learner_(self):
        """The former name of `model_`; removed in version 0.3."""
        _warn_of_former_name("learner_", "model_")
        return self.model_

    def fit(self, X, y):
        """Uses X [n, features] and y [n], of any names, as the context.

        Raises:
          ValueError: the data or parameters cannot be used, or there are more classes than the model distinguishes.
          TypeError: X is sparse.
        """
        return self._read(*self._start(X, y), classes=None)

    def partial_fit(self, X, y, classes=None):
        """Adds examples to the context. The whole context is read again, and determines scaling and estimators.

        Args:
          X, y: see `fit`.
          classes: at the first call, the names of all classes that will occur; None: those that have occurred so far.
        """
        if not hasattr(self, "classes_"):
            return self._read(*self._start(X, y), classes)
        X, y = self._validate(X, y, reset=False)
        if classes is not None and not np.array_equal(np.unique(classes), self.classes_):
            raise ValueError(f"classes = {list(classes)} is not the same as in the first call, {list(self.classes_)}")
        return self._read(np.concatenate([self._X, X]), np.concatenate([self._y, y]), self._announced)

    def predict_proba(self, X):
        """Returns the probabilities [n, classes] of X [n, features], in the order of `classes_`.

        Raises:
          ValueError: X cannot be used, or a number in it is so far from the context that the model gives no answer.
        """
        check_is_fitted(self)
        X = self._inputs(validate_data(self, X, dtype=np.float64, reset=False))
        batches = (X[start : start + self.batch_size] for start in range(0, len(X), self.batch_size))
        probabilities = np.concatenate([self._answer(batch) for batch in batches])
        finite = np.isfinite(probabilities).all(axis=1)
        if not finite.all():
            raise ValueError(f"X[{finite.argmin()}]: the {self.model_.name} in use gives no finite probabilities")
        return probabilities

    def predict(self, X):
        """Returns the most probable class of each row of X [n, features], [n]."""
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(axis=1)]

    def _start(self, X, y):
        model_path, num_estimators = self._given("model_path"), self._given("n_estimators")
        for name, value in (("n_estimators", num_estimators), ("batch_size", self.batch_size)):
            if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be a positive integer, not {value!r}")
        if not isinstance(self.shared_scale, (bool, np.bool_)):
            raise ValueError(f"shared_scale must be True or False, not {self.shared_scale!r}")
        if not isinstance(model_path, (str, os.PathLike, type(None))):
            raise ValueError(f"model_path must be a path or None, not {model_path!r}")
        self._num_estimators = int(num_estimators)
        X, y = self._validate(X, y, reset=True)
        self._seed = check_random_state(self.random_state).randint(2**31)
        try:
            self.model_ = learner.load(model_path, self.trusted_modules)
        except GpiclError as error:
            raise ValueError(str(error)) from error
        return X, y

    def _given(self, name):
        """Returns the value of a parameter, which may be given under its former name."""
        former = _FORMER_NAMES[name]
        if isinstance(value := getattr(self, former), str) and value == _DEPRECATED:
            return getattr(self, name)
        _warn_of_former_name(former, name)
        return value

    def _validate(self, X, y, *, reset):
        X, y = validate_data(self, X, y, dtype=np.float64, reset=reset)
        check_classification_targets(y)
        return X, y

    def _read(self, X, y, classes):
        """Encodes the context of all estimators."""
        model, tasks = self.model_, self.model_.run.tasks
        names, labels = np.unique(y, return_inverse=True)
        if classes is not None:
            names = np.unique(classes)
            unknown = np.setdiff1d(y, names)
            if len(unknown):
                raise ValueError(f"y holds {list(unknown)}, which are not among classes = {list(names)}")
            labels = np.searchsorted(names, y)
        if len(names) > tasks.targets.num_classes:
            raise ValueError(
                f"there are {len(names)} classes, and the {model.name} in use tells {tasks.targets.num_classes} apart; "
                "meta-train one with a larger TaskDistribution.num_classes"
            )
        if not model.reads_context or model.max_context < 1:
            raise ValueError(f"the {model.name} in use reads no context: it was trained on single examples")
        self.classes_, self._announced, self._X, self._y = names, classes, X, y
        self._standardizer = Standardizer.fit(X, shared=self.shared_scale)
        rng = np.random.default_rng(self._seed)
        self._projections = (
            ensemble.projections(rng, self._num_estimators, X.shape[1], tasks.num_features) * model.input_rms
        )
        self._labels = ensemble.label_permutations(rng, self._num_estimators, tasks.targets.num_classes)[
            :, : len(names)
        ]
        rows = ensemble.contexts(rng, labels, self._num_estimators, min(len(X), model.max_context))
        inputs = self._inputs(X)[rows] @ self._projections
        labels = np.take_along_axis(self._labels, labels[rows], axis=1)
        room = ((0, 0), (0, model.max_context - rows.shape[1]))
        self._context = model.encode(
            np.pad(inputs, (*room, (0, 0))), np.pad(labels, room), rows.shape[1], seed=self._seed
        )
        return self

    def _inputs(self, X):
        """Returns standardised X [n, features], float32."""
        standardised = self._standardizer(X)
        outlier = first_outlier(standardised)
        if outlier is not None:
            row, column = outlier
            names = getattr(self, "feature_names_in_", None)
            name = "" if names is None else f" (feature {names[column]!r})"
            raise ValueError(
                f"X[{row}, {column}]{name} is {X[outlier]:g}, more than {MAX_STANDARDISED:g} standard deviations away "
                "from the context, which no model can read"
            )
        return standardised.astype(np.float32)

    def _answer(self, X):
        """Returns the probabilities [n, classes] of standardised X [n, features], at most one batch."""
        queries = np.pad(X, ((0, self.batch_size - len(X)), (0, 0))) @ self._projections
        logits = self.model_.answer(self._context, queries)[:, : len(X)].astype(np.float64)
        own = np.take_along_axis(logits, self._labels[:, None], axis=2)
        return scipy.special.softmax(own, axis=2).mean(axis=0)


def _warn_of_former_name(former: str, name: str) -> None:
    message = f"{former} is now {name}; the former name goes in version 0.3"
    warnings.warn(message, FutureWarning, skip_file_prefixes=_PACKAGE)
