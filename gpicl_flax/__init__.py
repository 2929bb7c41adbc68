"""gpicl_flax: scaling studies of in-context learners on TPUs, in Flax.

Sequence models are meta-trained on tasks, which are made from a base dataset by randomly projecting the inputs and
permuting the labels, until they learn new tasks from context alone ("General-Purpose In-Context Learning by
Meta-Learning Transformers", arXiv 2212.04458; "the paper" in every docstring of this package).
"""

__version__ = "0.1.0"


def __getattr__(name: str):
    if name == "InContextClassifier":  # imported at its first use, so that commands without it start at once
        from gpicl_flax.learners.classifier import InContextClassifier

        return InContextClassifier
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
