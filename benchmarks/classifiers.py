"""How accurate `InContextClassifier` is beside other classifiers of scikit-learn, by the number of labelled examples.

    python benchmarks/classifiers.py [--checkpoint FOLDER] [--repeats N]

Of each data set that scikit-learn ships, examples are drawn at random, stratified; the others are queries. All
classifiers get the same ones. Those of digits are of the test split, for learners that were trained on the other one
(gin/quickstart.gin); the learner that comes with the package has seen neither. It also gets 500 random Fourier features
of the standardised ones, scikit-learn's RBFSampler with the gamma that depends on the number of features alone. The
other classifiers get standardised features, except on digits, where they do better without, and where the learner
scales all pixels alike.
"""

import argparse
from typing import Any

import numpy as np
import sklearn.datasets
from sklearn.kernel_approximation import RBFSampler
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedShuffleSplit
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from gpicl_flax import InContextClassifier
from gpicl_flax.tasks.datasets import sources
from gpicl_flax.terminal import text_table

CONTEXTS = {"digits": (20, 50, 99, 200), "iris": (15, 50, 99), "wine": (15, 50, 99), "breast_cancer": (20, 99, 400)}


def load(name: str) -> tuple[np.ndarray, np.ndarray]:
    if name == "digits":
        test = sources.load("digits").test
        return test.array.reshape(len(test.inputs), -1), test.labels
    return getattr(sklearn.datasets, f"load_{name}")(return_X_y=True)


def classifiers(checkpoint: str | None, scaled: bool) -> dict:
    others = {
        "LogisticRegression": LogisticRegression(max_iter=2000),
        "KNeighbors, k=5": KNeighborsClassifier(),
        "KNeighbors, k=1": KNeighborsClassifier(1),
    }
    if scaled:
        others = {name: make_pipeline(StandardScaler(), other) for name, other in others.items()}
    own = InContextClassifier(checkpoint, shared_scale=not scaled, random_state=0)
    gamma: Any = "scale"  # which the annotation leaves out
    lifted = make_pipeline(StandardScaler(), RBFSampler(gamma=gamma, n_components=500, random_state=0), own)
    return {"InContextClassifier": own, "RBFSampler before it": lifted, **others}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--checkpoint", metavar="FOLDER", help="another learner than the one that comes with the package"
    )
    parser.add_argument("--repeats", type=int, default=10, metavar="N", help="random draws (default %(default)s)")
    arguments = parser.parse_args()
    rows = [("", "examples", *classifiers(None, False))]
    for name, sizes in CONTEXTS.items():
        X, y = load(name)
        for size in sizes:
            splits = list(StratifiedShuffleSplit(arguments.repeats, train_size=size, random_state=0).split(X, y))
            cells = []
            for classifier in classifiers(arguments.checkpoint, scaled=name != "digits").values():
                scores = [classifier.fit(X[own], y[own]).score(X[rest], y[rest]) for own, rest in splits]
                cells.append(f"{np.mean(scores):.1%} ± {np.std(scores):.1%}")
            rows.append((name, str(size), *cells))
    print(text_table.render(rows, right=range(1, len(rows[0]))))
    print(f"(mean and standard deviation over {arguments.repeats} draws)")


if __name__ == "__main__":
    main()
