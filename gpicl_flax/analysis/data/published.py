"""The numbers that the paper publishes.

It is Kirsch et al., General-Purpose In-Context Learning by Meta-Learning Transformers.
"""

import dataclasses
from collections.abc import Mapping
from typing import cast

import pandas as pd


@dataclasses.dataclass(frozen=True)
class Value:
    """A published value.

    Attributes:
      figure: the figure of the paper that shows it.
      what: the quantity.
      value: the value in the paper's words.
      source: the section or table that states it.
    """

    figure: str
    what: str
    value: str
    source: str


# The keys are those under which charts state their own values, `Chart.ours`.
VALUES = {
    "tasks_to_generalize": Value(
        "Figures 2, 4",
        "number of tasks from which unseen tasks are learned",
        "at least 2^13 = 8,192",
        "Insight 1, Section 4",
    ),
    "clusters_part": Value(
        "Figure 5", "number of tasks at which some runs find a solution that generalizes", "6,000", "Section 4.1"
    ),
    "plateau_steps": Value(
        "Figure 7", "length of the plateau, 2^16 tasks of Fashion-MNIST", "around 35,000 steps", "Section 4.3"
    ),
    "plateau_by_batch_size": Value(
        "Figure 8b",
        "length of the plateau in steps, from the smallest to the largest batch",
        "decreases, as a power law",
        "Section 4.3",
    ),
    "tasks_seen_by_batch_size": Value(
        "Figure 18", "tasks seen on the plateau, from the smallest to the largest batch", "increases", "Appendix A.5"
    ),
    "plateau_by_eps": Value(
        "Figure 19b",
        "length of the plateau, from the largest to the smallest eps of Adam",
        "less than times 0.5",
        "Section 4.3",
    ),
    "cifar10_from_features": Value(
        "Figure 10", "last prediction on CIFAR10 from features, trained on MNIST", "about 45%", "Section 4.4"
    ),
    "accuracy_by_sequence_length": Value(
        "Figure 14", "accuracy of the last prediction with longer sequences", "consistently increases", "Appendix A.5"
    ),
}  # fmt: skip

TABLE_2_PREDICTIONS = 768  # predictions behind each entry of Table 2: 3 seeds x 16 tasks x 16 sequences

# Table 2: accuracy of the 100th prediction after meta-training on MNIST, by model here and by base dataset. 1 is 100%.
TABLE_2 = pd.DataFrame.from_dict(
    {
        "OnlineSGD": (0.7031, 0.5078, 0.3789, 1.0000, 0.1484, 0.1016),
        "MAML": (0.5371, 0.4844, 0.3633, 0.9980, 0.1738, 0.1133),
        "VSML": (0.7904, 0.6849, 0.5469, 1.0000, 0.2409, 0.1745),
        "LSTM": (0.2539, 0.2812, 0.1810, 0.5872, 0.1211, 0.1107),
        "Transformer": (0.7370, 0.6224, 0.5339, 1.0000, 0.1940, 0.1458),
    },
    orient="index",
    columns=["mnist", "fashion_mnist", "kmnist", "random", "cifar10", "svhn_cropped"],
)  # fmt: skip


def table_2(model: str, test_dataset: str) -> float:
    """Returns an entry of Table 2; NaN where it has none."""
    known = model in TABLE_2.index and test_dataset in TABLE_2.columns
    return cast(float, TABLE_2.at[model, test_dataset]) if known else float("nan")


def beside(ours: Mapping[str, str]) -> pd.DataFrame:
    """Returns all values as a table, beside those that `ours` holds under their keys.

    Its columns are figure, what, published, these runs and source.
    """
    rows = [(value.figure, value.what, value.value, ours.get(key, ""), value.source) for key, value in VALUES.items()]
    return pd.DataFrame(rows, columns=["figure", "what", "published", "these runs", "source"])
