"""Parameters of the classifier work under their former names, with a warning, until version 0.3."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris

from gpicl_flax import InContextClassifier
from gpicl_flax.learners import learner

X, y = load_iris(return_X_y=True)
X, y = X[::5], y[::5]


def test_former_parameters_mean_the_same_and_warn():
    expected = InContextClassifier(learner.SHIPPED, n_estimators=2, random_state=0).fit(X, y)
    former = InContextClassifier(checkpoint=str(learner.SHIPPED), n_members=2, random_state=0)
    with pytest.warns(FutureWarning) as warned:
        clone(former).fit(X, y)
        found = former.fit(X, y)
    messages = {str(warning.message) for warning in warned}
    assert messages == {
        "checkpoint is now model_path; the former name goes in version 0.3",
        "n_members is now n_estimators; the former name goes in version 0.3",
    }
    np.testing.assert_array_equal(found.predict_proba(X), expected.predict_proba(X))
    with pytest.warns(FutureWarning, match="learner_ is now model_"):
        assert found.learner_ is found.model_


def test_present_names_do_not_warn(recwarn):
    InContextClassifier(n_estimators=1, random_state=0).fit(X, y)
    assert not [warning for warning in recwarn if issubclass(warning.category, FutureWarning)]
