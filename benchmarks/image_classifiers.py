"""How accurate classifiers of scikit-learn are on a base dataset itself, from as many labelled examples as a learner has.

    python benchmarks/image_classifiers.py [--base_datasets mnist fashion_mnist] [--draws N]

What the accuracies in docs/results.md are held against: the test examples that meta-tests make tasks from, 14x14x1 and
normalised, with neither projection nor permutation.
"""

import argparse

import numpy as np
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC

from gpicl_flax import text_table
from gpicl_flax.tasks import input_space
from gpicl_flax.tasks.distribution import TaskDistribution
from gpicl_flax.tasks.images import grey_values

EXAMPLES, QUERIES = 99, 50
CLASSIFIERS = {"KNeighbors, k=1": KNeighborsClassifier(1), "SVC, C=10": SVC(C=10, gamma="scale")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base_datasets", nargs="+", default=["mnist", "fashion_mnist"], metavar="NAME")
    parser.add_argument("--draws", type=int, default=300, metavar="N")
    arguments = parser.parse_args()
    rows = [("", *CLASSIFIERS)]
    for name in arguments.base_datasets:
        dataset = TaskDistribution(base_dataset=name).load()
        grow = input_space.growth(dataset.stored_shape, dataset.input_shape)
        offset, scale = dataset.normalization(True)
        inputs = (np.asarray(grow(grey_values(dataset.test.inputs))) * 255 - offset) / scale
        labels, rng, found = dataset.test.labels, np.random.default_rng(0), []
        for _ in range(arguments.draws):
            drawn = rng.choice(len(labels), EXAMPLES + QUERIES, replace=False)
            context, queries = drawn[:EXAMPLES], drawn[EXAMPLES:]
            found.append(
                [
                    c.fit(inputs[context], labels[context]).score(inputs[queries], labels[queries])
                    for c in CLASSIFIERS.values()
                ]
            )
        error = 1.96 * np.std(found, axis=0, ddof=1) / len(found) ** 0.5
        rows.append((name, *(f"{m:.1%} ± {e:.1%}" for m, e in zip(np.mean(found, axis=0), error, strict=True))))
    print(text_table.render(rows, right=range(1, len(rows[0]))))
    print(f"(after {EXAMPLES} examples; means of {arguments.draws} draws of {QUERIES} queries, 95% intervals)")


if __name__ == "__main__":
    main()
