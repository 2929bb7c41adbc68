"""How accurate classifiers are on a base dataset itself, from as many labelled examples as a learner has.

    python benchmarks/image_classifiers.py [--base_datasets mnist fashion_mnist] [--draws N]

What the accuracies in docs/results.md are held against: on the test examples that meta-tests make tasks from, 14x14x1
and normalised, as they are and after a random projection, a new one for each draw, as in a task. Beside classifiers of
scikit-learn the learner that comes with the package, as one and as the mean of several members, each with another
projection of its inputs, another permutation of its labels and another order of its examples.
"""

import argparse

import numpy as np
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC

from gpicl_flax import InContextClassifier
from gpicl_flax.tasks.datasets.images import grey_values
from gpicl_flax.tasks.families.projected_images import ProjectedImages
from gpicl_flax.tasks.projections import input_space
from gpicl_flax.terminal import text_table

EXAMPLES, QUERIES = 99, 50
RANDOM = np.random.RandomState(0)  # goes on from fit to fit: other members for every draw
CLASSIFIERS = {
    "KNeighbors, k=1": KNeighborsClassifier(1),
    "SVC, C=10": SVC(C=10, gamma="scale"),
    "InContextClassifier, 1 member": InContextClassifier(n_estimators=1, shared_scale=True, random_state=RANDOM),
    "16 members": InContextClassifier(shared_scale=True, random_state=RANDOM),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--base_datasets", nargs="+", default=["mnist", "fashion_mnist"], metavar="NAME")
    parser.add_argument("--draws", type=int, default=300, metavar="N")
    arguments = parser.parse_args()
    rows = [("", *CLASSIFIERS)]
    for name in arguments.base_datasets:
        dataset = ProjectedImages(base_dataset=name).load()
        grow = input_space.growth(dataset.stored_shape, dataset.input_shape)
        offset, scale = dataset.normalization(True)
        inputs = (np.asarray(grow(grey_values(dataset.test.inputs))) * 255 - offset) / scale
        for words, projected in ((name, False), (f"{name}, projected", True)):
            scores = np.array([_score(inputs, dataset.test.labels, draw, projected) for draw in range(arguments.draws)])
            error = 1.96 * scores.std(axis=0, ddof=1) / len(scores) ** 0.5
            rows.append((words, *(f"{m:.1%} ± {e:.1%}" for m, e in zip(scores.mean(axis=0), error, strict=True))))
    print(text_table.render(rows, right=range(1, len(rows[0]))))
    print(f"(after {EXAMPLES} examples; means of {arguments.draws} draws of {QUERIES} queries, 95% intervals)")


def _score(inputs: np.ndarray, labels: np.ndarray, draw: int, projected: bool) -> list[float]:
    """The share of a draw's queries that each classifier has right."""
    rng = np.random.default_rng(draw)
    drawn = rng.choice(len(labels), EXAMPLES + QUERIES, replace=False)
    x, y = inputs[drawn], labels[drawn]
    if projected:
        x = x @ (rng.standard_normal((x.shape[1], x.shape[1])) / x.shape[1] ** 0.5)
    return [c.fit(x[:EXAMPLES], y[:EXAMPLES]).score(x[EXAMPLES:], y[EXAMPLES:]) for c in CLASSIFIERS.values()]


if __name__ == "__main__":
    main()
