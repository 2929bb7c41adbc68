"""References beside a model, along training and in its meta-test."""

import jax
import numpy as np
import pytest

from gpicl_flax.config import parse
from gpicl_flax.errors import UsageError
from gpicl_flax.records import json_lines
from gpicl_flax.records.run_folder import RunFolder
from gpicl_flax.references import by_family
from gpicl_flax.references.reference import Reference
from gpicl_flax.runs.execute import RunSpec, execute
from gpicl_flax.runs.run import resolve
from gpicl_flax.runtime.preemption import StopRequest
from gpicl_flax.tasks import keys
from gpicl_flax.tasks.families import FunctionClasses, GaussianClasses, NoisyLinearRegression, Recall, Sequences
from gpicl_flax.tasks.targets import Classes, Normals, Numbers

BINDINGS = [
    "Run.model = @LSTM()", "LSTM.hidden_size = 8", "Run.optimizer = @adam()", "adam.learning_rate = 1e-2",
    "Training.steps = 8", "Training.steps_per_dispatch = 2", "Training.checkpoint_period = 8",
    "Training.diagnostics = @Diagnostics()", "Diagnostics.period = 4", "Diagnostics.num_sequences = 4",
    "MetaTest.num_sequences = 20", "MeshShape.data = 1",
]  # fmt: skip
REGRESSION = [
    "Run.tasks = @NoisyLinearRegression()", "NoisyLinearRegression.dimensions = 2",
    "NoisyLinearRegression.sequence_length = 6", "NoisyLinearRegression.task_batch_size = 8",
    "NoisyLinearRegression.num_tasks = 4",
]  # fmt: skip


def of_size(name, **settings):
    return [
        f"Run.tasks = @{name}()",
        f"{name}.task_batch_size = 8",
        *(f"{name}.{k} = {v!r}" for k, v in settings.items()),
    ]


FAMILIES = {
    "NoisyLinearRegression": (REGRESSION, {"dMMSE": ("loss", "distance"), "ridge": ("loss", "distance")}),
    "normals": (
        [*REGRESSION, "NoisyLinearRegression.predicts = 'normals'", "NoisyLinearRegression.num_tasks = None"],
        {"ridge": ("squared_error", "distance")},
    ),
    "GaussianClasses": (
        of_size("GaussianClasses", sequence_length=6, num_tasks=4),
        {
            "Bayes for K tasks": ("accuracy", "loss", "distance"),
            "conjugate": ("accuracy", "loss", "distance"),
            "nearest class mean": ("accuracy",),
        },
    ),
    "Recall": (of_size("Recall", num_pairs=3), {"look-up": ("accuracy",)}),
    "RandomFunctions": (
        of_size("RandomFunctions", dimensions=4, sequence_length=6),
        {"nearest neighbour": ("accuracy",), "ridge": ("accuracy",)},
    ),
    "Mixture": (
        [
            *of_size("Mixture", sequence_length=6),
            "Mixture.families = [@GaussianClasses(), @Recall()]",
            "GaussianClasses.sequence_length = 6", "Recall.num_pairs = 3",
        ],
        {
            "GaussianClasses: Bayes": ("accuracy", "loss", "distance"),
            "GaussianClasses: nearest class mean": ("accuracy",),
            "Recall: look-up": ("accuracy",),
        },
    ),
    "FunctionClasses": (
        of_size("FunctionClasses", function_class="tree", sequence_length=6),
        {"least squares": ("loss", "distance"), "3 nearest neighbours": ("loss", "distance")},
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name,
            marks=[pytest.mark.slow]
            * (name in ("normals", "FunctionClasses", "GaussianClasses", "Recall", "RandomFunctions", "Mixture")),
        )
        for name in FAMILIES
    ],
)
def test_a_run_has_its_references_beside_it(start, tmp_path, name):
    bindings, expected = FAMILIES[name]
    folder = RunFolder(tmp_path / "run")
    start(parse([], [*BINDINGS, *bindings]), folder)
    for curve in folder.latest_evaluation()["curves"]:
        assert curve["references"].keys() == expected.keys()
        for reference, quantities in expected.items():
            own = curve["references"][reference]
            names = {f"{quantity}{ending}" for quantity in quantities for ending in ("", "_low", "_high")}
            assert own.keys() - {"positions"} == names
            assert all(len(own[n]) == len(curve["loss"]) and np.isfinite(own[n]).all() for n in names)
    (before, after) = (
        r["diagnostics"].get("distances", {}) for r in json_lines.read(folder.metrics) if "diagnostics" in r
    )
    assert before.keys() == {n for n, quantities in expected.items() if "distance" in quantities}
    assert before != after or not before


@pytest.mark.slow
def test_members_of_a_stack_have_the_distances_that_they_would_have_alone(start, tmp_path):
    members = [[f"NoisyLinearRegression.num_tasks = {k}"] for k in (2, 8)]
    configs = [parse([], [*BINDINGS, *REGRESSION, *own]) for own in members]
    together = [RunFolder(tmp_path / f"member_{index}") for index in range(2)]
    with StopRequest() as stop:
        execute([RunSpec.from_config(c, f) for c, f in zip(configs, together, strict=True)], stop)
    for index, config in enumerate(configs):
        alone = RunFolder(tmp_path / f"alone_{index}")
        start(config, alone)
        rows = [[r["diagnostics"]["distances"] for r in json_lines.read(f.metrics) if "diagnostics" in r]
                for f in (together[index], alone)]  # fmt: skip
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4), *rows)


def sequences_of(family, seed, ids):
    def one(task_id):
        task = family.draw_task(jax.random.fold_in(keys.task_key(seed), task_id))
        return family.draw_sequence(task, jax.random.fold_in(keys.sequence_key(seed), task_id))

    return jax.vmap(one)(np.asarray(ids, np.uint32))


@pytest.mark.parametrize(
    ("family", "optimum"),
    [
        (NoisyLinearRegression(dimensions=3, sequence_length=8, num_tasks=4), "dMMSE"),
        (GaussianClasses(dimensions=4, num_classes=3, sequence_length=8, num_tasks=4), "Bayes for K tasks"),
    ],
)
def test_the_optimum_for_k_tasks_knows_the_tasks_of_the_run(family, optimum):
    found, kind = by_family.references(family), family.targets
    losses = {}
    for seed in (3, 4):  # the seed of the tasks, and another one
        sequences = sequences_of(family, 3, np.arange(200) % 4)
        reference = found[optimum]
        predicted = reference.predict(np.uint32(seed), sequences)
        losses[seed] = reference.measure(kind, predicted, sequences.targets)["loss"][:, -1].mean()
    rest = next(found[name] for name in ("ridge", "conjugate") if name in found)
    predicted = rest.predict(np.uint32(3), sequences)
    other = rest.measure(kind, predicted, sequences.targets)["loss"][:, -1].mean()
    assert losses[3] < other and losses[3] < losses[4]


def test_look_up_answers_every_question():
    family = Recall(num_pairs=5, dimensions=4)
    sequences = sequences_of(family, 0, range(40))
    (reference,) = by_family.references(family).values()
    accuracy = reference.measure(family.targets, reference.predict(np.uint32(0), sequences), sequences.targets)[
        "accuracy"
    ]
    assert np.asarray(accuracy)[np.asarray(sequences.counted)].all()


def test_hidden_classes_are_not_learned_from():
    targets = np.array([[1, 2, 0, 1]])
    shown = np.array([[True, False, True, True]])
    inputs = np.random.default_rng(0).normal(size=(1, 4, 3)).astype(np.float32)
    (reference,) = by_family.references(Recall(num_pairs=2, dimensions=3, num_classes=3)).values()
    one = reference.predict(np.uint32(0), Sequences(inputs, targets, shown))
    other = reference.predict(np.uint32(0), Sequences(inputs, np.where(shown, targets, 0), shown))
    np.testing.assert_array_equal(one, other)


def test_distances_are_those_of_numpy():
    rng = np.random.default_rng(0)
    logits, own = rng.normal(size=(2, 2, 3, 4)).astype(np.float32)
    own = jax.nn.log_softmax(own)
    p, q = np.exp(np.float64(own)), np.exp(np.float64(jax.nn.log_softmax(logits)))
    probabilities = Reference(lambda seed, sequences: own, has_probabilities=True)
    np.testing.assert_allclose(
        probabilities.distance(Classes(4), own, logits)["distance"], (p * np.log(p / q)).sum(-1), rtol=1e-4
    )
    certain = np.where(np.eye(4)[None, :3] > 0, 0, -np.inf).astype(np.float32)
    found = probabilities.distance(Classes(4), certain, logits[:1])["distance"]
    np.testing.assert_allclose(found[0], -np.log(q[0][range(3), range(3)]), rtol=1e-5)
    numbers, predictions = rng.normal(size=(2, 3)), rng.normal(size=(2, 3, 2))
    of_numbers = Reference(lambda seed, sequences: numbers)
    for kind in (Numbers(1.0), Normals(1.0)):
        squares = np.square(numbers - predictions[..., 0])
        np.testing.assert_allclose(of_numbers.distance(kind, numbers, predictions)["distance"], squares, rtol=1e-5)
    assert Reference(lambda seed, sequences: logits).distance(Classes(4), logits, logits) == {}


def test_an_unknown_reference_is_named_before_anything_starts():
    message = r"MetaTest.references names 'lasso'; the references of NoisyLinearRegression are: 'dMMSE', 'ridge'"
    with pytest.raises(UsageError, match=message):
        resolve(parse([], [*BINDINGS, *REGRESSION, "MetaTest.references = ['lasso']"]))
    with pytest.raises(UsageError, match="Diagnostics.references names 'x'"):
        resolve(parse([], [*BINDINGS, *REGRESSION, "Diagnostics.references = ['x']"]))


def test_projected_images_have_references_only_where_they_are_named(start, small_bindings, tmp_path):
    folders = [RunFolder(tmp_path / name) for name in ("without", "with")]
    for folder, bindings in zip(folders, ([], ["MetaTest.references = ['nearest neighbour', 'ridge']"]), strict=True):
        start(parse([], [*small_bindings, "Training.steps = 0", "Run.model = @LSTM()", *bindings]), folder)
    without, beside = ([dict(c) for c in folder.latest_evaluation()["curves"]] for folder in folders)
    references = [curve.pop("references") for curve in beside]
    assert without == beside and all(found.keys() == {"nearest neighbour", "ridge"} for found in references)
    # Six examples of ten classes: by then, few labels have been seen.
    assert all(np.mean(found[name]["accuracy"]) > 0.12 for found in references for name in found)


def test_no_reference_without_noise_divides_by_it():
    for family in (NoisyLinearRegression(noise=0.0, num_tasks=4), GaussianClasses(noise=0.0, num_tasks=4)):
        sequences = sequences_of(family, 0, range(4))
        for reference in by_family.references(family).values():
            assert np.isfinite(reference.predict(np.uint32(0), sequences)).all()
    assert by_family.references(FunctionClasses(function_class="sparse_linear")).keys() == {
        "least squares", "averaging", "3 nearest neighbours",
    }  # fmt: skip
