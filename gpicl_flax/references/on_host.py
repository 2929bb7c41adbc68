"""The references of each task family that run on the host, by name: estimators of scikit-learn, gradient descent.

They learn anew at every position of every sequence, so that they are measured at a few positions of a few sequences,
and only where `MetaTest.references` names them.
"""

import functools
from collections.abc import Callable, Sequence

import numpy as np

from gpicl_flax.tasks.families import (
    FunctionClasses,
    GaussianClasses,
    Mixture,
    ProjectedImages,
    RandomFunctions,
    TaskFamily,
)

# (inputs [n, T, X], shown targets [n, T], P positions) -> numbers [n, P], or probabilities of the classes [n, P, C]. It
# learns from the examples before each position. A hidden class is -1, and is not learned from.
HostReference = Callable[[np.ndarray, np.ndarray, Sequence[int]], np.ndarray]


@functools.singledispatch
def host_references(family: TaskFamily) -> dict[str, HostReference]:
    """Returns the references of a family on the host. One of a user's own registers a function, as in `by_family`."""
    return {}


def _classifier(name: str, family: TaskFamily, *, standardize: bool = False) -> HostReference:
    def predict(inputs, labels, positions):
        from gpicl_flax.references import scikit_learn  # here, because it takes a second to import

        classifier, num_classes = scikit_learn.CLASSIFIERS[name], family.targets.num_classes
        return scikit_learn.class_probabilities(
            classifier, inputs, labels, positions, num_classes, standardize=standardize
        )

    return predict


def _regressor(name: str) -> HostReference:
    def predict(inputs, targets, positions):
        from gpicl_flax.references import scikit_learn

        return scikit_learn.numbers(scikit_learn.REGRESSORS[name], inputs, targets, positions)

    return predict


def _network_descent(inputs, targets, positions):
    from gpicl_flax.references.network_descent import network_descent

    return network_descent(inputs, targets, positions)


@host_references.register
def _(family: RandomFunctions) -> dict[str, HostReference]:
    """Returns what people use for tables, on standardised columns."""
    names = {
        "logistic regression": "logistic_regression",
        "SVM": "svm",
        "random forest": "random_forest",
        "5 nearest neighbours": "nearest_neighbours",
    }
    return {name: _classifier(estimator, family, standardize=True) for name, estimator in names.items()}


@host_references.register(ProjectedImages)
@host_references.register(GaussianClasses)
def _(family: ProjectedImages | GaussianClasses) -> dict[str, HostReference]:
    """On the inputs as they are: all features have one scale."""
    return {"SVM": _classifier("svm", family)}


@host_references.register
def _(family: FunctionClasses) -> dict[str, HostReference]:
    """The comparisons of Garg et al. 2022 (arXiv 2208.01066) that are no formulas."""
    of_class = {
        "sparse_linear": {"Lasso": _regressor("lasso")},
        "tree": {"boosted trees": _regressor("boosted_trees")},
        "relu_network": {"gradient descent on the same network": _network_descent},
    }
    return of_class.get(family.function_class, {})


@host_references.register
def _(family: Mixture) -> dict[str, HostReference]:
    """Those of its parts. Each takes every sequence for one of its own family."""
    return {
        f"{label}: {name}": _of_part(reference, part, family.targets.num_classes)
        for label, part in zip(family.labels, family.parts, strict=True)
        for name, reference in host_references(part).items()
    }


def _of_part(reference: HostReference, part: TaskFamily, num_classes: int) -> HostReference:
    """Returns a reference that takes the sequences of a mixture for ones of the family `part`."""
    own_classes = part.targets.num_classes

    def predict(inputs, targets, positions):
        inputs = inputs[..., : part.num_features]
        if not num_classes:
            return reference(inputs, targets, positions)
        probabilities = reference(inputs, np.where(targets < own_classes, targets, -1), positions)
        return np.pad(probabilities, ((0, 0), (0, 0), (0, num_classes - own_classes)))

    return predict
