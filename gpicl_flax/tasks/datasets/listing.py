"""Lists base datasets: those built in, known to the paper, and found in a TFDS folder."""

import pathlib
from typing import Any, NamedTuple

from etils import epath

from gpicl_flax.tasks.datasets import tfds_store
from gpicl_flax.tasks.datasets.random_points import NUM_POINTS
from gpicl_flax.tasks.datasets.raw import BUILT_IN
from gpicl_flax.tasks.datasets.sources import NUM_DIGITS_TEST
from gpicl_flax.terminal import text_table

# The paper's datasets, by their names in TFDS: examples of both splits and shape, as their publishers state them.
PAPER = {
    "mnist": (60_000, 10_000, "28x28x1"),
    "fashion_mnist": (60_000, 10_000, "28x28x1"),
    "kmnist": (60_000, 10_000, "28x28x1"),
    "cifar10": (50_000, 10_000, "32x32x3"),
    "svhn_cropped": (73_257, 26_032, "32x32x3"),
}
# The folder to which Debian's package dataset-fashion-mnist installs its idx files.
DEBIAN_FASHION_MNIST = pathlib.Path("/usr/share/datasets/fashion-mnist")


class Entry(NamedTuple):
    """One base dataset: its examples and input shape as text, whether it can be used, and where it is."""

    name: str
    train: str
    test: str
    inputs: str
    state: str
    where: str


def entries(data_dir: str | None) -> list[Entry]:
    """Returns every base dataset with a name, including the prepared ones of the TFDS folder."""
    folder = tfds_store.data_dir_or_default(data_dir)
    prepared = {entry.name: entry for entry in _prepared(folder)}
    rows = [Entry("digits", f"{1797 - NUM_DIGITS_TEST:,}", f"{NUM_DIGITS_TEST:,}", "8x8x1", "ready", "scikit-learn")]
    rows += [
        Entry(name, "10,000", "10,000", "any", "ready", f"made here: groups of {NUM_POINTS} random points")
        for name in BUILT_IN[1:]
    ]
    for name, (train, test, shape) in PAPER.items():
        rows.append(
            prepared.pop(name, Entry(name, f"{train:,}", f"{test:,}", shape, "not prepared", str(folder / name)))
        )
    rows += prepared.values()
    if DEBIAN_FASHION_MNIST.is_dir():
        command = f"gpicl datasets import debian_fashion --images {DEBIAN_FASHION_MNIST}"
        rows.append(Entry("(Fashion-MNIST)", "60,000", "10,000", "28x28x1", "importable", command))
    return rows


def as_table(data_dir: str | None) -> str:
    """Returns the entries as aligned lines."""
    header = ("name", "train", "test", "inputs", "state", "where")
    return text_table.render([header, *entries(data_dir)], right=(1, 2))


def _prepared(folder: epath.Path) -> list[Entry]:
    """Returns the datasets of inputs and labels in a TFDS folder that `tfds_store.read` can open."""
    import tensorflow_datasets as tfds

    found = []
    # <name>/<version>, or <name>/<config>/<version>
    for path in sorted(path for depth in ("*/*", "*/*/*") for path in folder.glob(f"{depth}/dataset_info.json")):
        try:
            info: Any = tfds.builder_from_directory(str(path.parent)).info  # its annotations are too wide
            features, splits = info.features or {}, info.splits
            key = next(name for name in ("image", tfds_store.FEATURES) if name in features)
            train, test = (f"{splits[name].num_examples:,}" for name in ("train", "test"))
            shape = "x".join("?" if n is None else str(n) for n in features[key].shape)
        except Exception:  # not a dataset of inputs and labels, or damaged: reading it will say what is wrong
            continue
        if "label" in features:
            state = "ready" if info.file_format.value == "array_record" else f"{info.file_format.value}, unreadable"
            name = info.full_name.rpartition("/")[0]
            found.append(Entry(name, train, test, shape, state, info.data_dir))
    return found
