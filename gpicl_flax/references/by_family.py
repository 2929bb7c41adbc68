"""The references of each task family that are formulas, by name. The first of a family with a known optimum is it."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax

from gpicl_flax.errors import UsageError
from gpicl_flax.references import gaussian_classes, pool_posterior
from gpicl_flax.references.averaging import averaging
from gpicl_flax.references.least_squares import least_squares
from gpicl_flax.references.nearest_neighbours import nearest_neighbours
from gpicl_flax.references.of_part import of_part
from gpicl_flax.references.on_host import host_references
from gpicl_flax.references.reference import Reference
from gpicl_flax.references.ridge import ridge
from gpicl_flax.tasks.families import (
    FunctionClasses,
    GaussianClasses,
    Mixture,
    NoisyLinearRegression,
    ProjectedImages,
    RandomFunctions,
    Recall,
    TaskFamily,
)


@functools.singledispatch
def references(family: TaskFamily) -> dict[str, Reference]:
    """Returns the references of a family. One of a user's own registers a function: `@references.register`."""
    return {}


def chosen(
    family: TaskFamily, names: Sequence[str] | None, setting: str, *, with_host: bool = False
) -> dict[str, Reference]:
    """Returns the references that a setting names; None: all, but none where tasks are made from a base dataset.

    Args:
      family: the family.
      names: the names, or None.
      setting: the setting that has them, for messages.
      with_host: whether references that run on the host may be among the names; they are not among the results.

    Raises:
      UsageError: the family has no reference of a name, or has it on the host alone.
    """
    found, on_host = references(family), host_references(family)
    if names is None:
        return {} if family.has_base_datasets else found
    for name in names:
        if name in on_host and not with_host:
            raise UsageError(f"{setting} names {name!r}, which runs on the host: only MetaTest.references can name it")
        if name not in found and name not in on_host:
            known = ", ".join(map(repr, [*found, *(on_host if with_host else ())])) or "none"
            raise UsageError(f"{setting} names {name!r}; the references of {family.gin_name} are: {known}")
    return {name: found[name] for name in names if name in found}


def _of_numbers(predict: Callable[..., jax.Array], *settings: Any) -> Reference:
    return Reference(lambda seed, sequences: predict(sequences.inputs, sequences.targets, *settings))


def _of_one_hot(predict: Callable[..., jax.Array], family: TaskFamily, *settings: Any) -> Reference:
    """A reference for numbers, on the one-hot vectors of the shown classes."""

    def scores(seed, sequences):
        shown = sequences.shown_targets(sequences.targets)
        return predict(sequences.inputs, jax.nn.one_hot(shown, family.targets.num_classes), *settings)

    return Reference(scores)


def _draw_tasks(family: TaskFamily, seed: jax.Array) -> Callable[[jax.Array], Any]:
    """Returns a function of task ids [n] that draws their tasks, [n, ...]."""
    return jax.vmap(lambda task_id: family.make_task(seed, task_id))


@references.register
def _(family: NoisyLinearRegression) -> dict[str, Reference]:
    """Ridge is Bayes for unbounded tasks, dMMSE for K (Raventos et al. 2023, Section 2)."""
    if not family.noise:
        return {"least squares": _of_numbers(least_squares)}
    found = {"ridge": _of_numbers(ridge, family.noise**2)}
    if family.num_tasks is None:
        return found

    def predict(seed, sequences):
        pool = {"num_tasks": family.num_tasks, "noise": family.noise}
        return pool_posterior.pool_posterior(sequences.inputs, sequences.targets, _draw_tasks(family, seed), **pool)

    return {"dMMSE": Reference(predict, weighs_tasks=True)} | found


@references.register
def _(family: GaussianClasses) -> dict[str, Reference]:
    """The conjugate posterior predictive is Bayes for unbounded tasks, the mixture over the tasks for K.

    Both assume uniform, independent and true labels and tasks that share nothing, so with an axis of `ClassAxes` on
    they are not called Bayes.
    """
    settings = {"num_classes": family.num_classes}
    nearest_mean = Reference(
        lambda seed, sequences: gaussian_classes.nearest_class_mean(sequences.inputs, sequences.targets, **settings)
    )
    if not family.noise:
        return {"nearest class mean": nearest_mean}

    def conjugate(seed, sequences):
        return gaussian_classes.conjugate(sequences.inputs, sequences.targets, noise=family.noise, **settings)

    def mixture(seed, sequences):
        pool = {"num_tasks": family.num_tasks, "noise": family.noise}
        return gaussian_classes.pool_posterior(sequences.inputs, sequences.targets, _draw_tasks(family, seed), **pool)

    rest = {"nearest class mean": nearest_mean}
    if family.num_tasks is None:
        name = "conjugate" if family.has_axes else "Bayes"
        return {name: Reference(conjugate, has_probabilities=True)} | rest
    name = "mixture over K tasks" if family.has_axes else "Bayes for K tasks"
    optimum = {name: Reference(mixture, has_probabilities=True, weighs_tasks=True)}
    return optimum | {"conjugate": Reference(conjugate, has_probabilities=True)} | rest


@references.register
def _(family: Recall) -> dict[str, Reference]:
    """The class of the nearest key that was presented, which is always right."""
    return {"look-up": _of_one_hot(nearest_neighbours, family, 1)}


@references.register
def _(family: FunctionClasses) -> dict[str, Reference]:
    """Those of Garg et al. 2022, Section 3 and 4, that are formulas."""
    found = {
        "least squares": _of_numbers(least_squares),
        "3 nearest neighbours": _of_numbers(nearest_neighbours, 3),
    }
    is_linear = family.function_class in ("linear", "sparse_linear")
    return found | ({"averaging": _of_numbers(averaging)} if is_linear else {})


@references.register(ProjectedImages)
@references.register(RandomFunctions)
def _(family: ProjectedImages | RandomFunctions) -> dict[str, Reference]:
    """On the inputs of the sequence. The penalty of ridge is that of one example with inputs of unit variance."""
    return {
        "nearest neighbour": _of_one_hot(nearest_neighbours, family, 1),
        "ridge": _of_one_hot(ridge, family, float(family.num_features)),
    }


@references.register
def _(family: Mixture) -> dict[str, Reference]:
    """Those of its parts. Each takes every sequence for one of its own family, and knows nothing of the others."""
    return {
        f"{label}: {name}": of_part(reference, part, family.targets.num_classes)
        for label, part in zip(family.labels, family.parts, strict=True)
        for name, reference in references(part).items()
        if not reference.weighs_tasks
    }
