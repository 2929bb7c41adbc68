"""The subcommands of `gpicl datasets`. Each calls the room tasks/, except for `needed`, which asks runs."""

import argparse
import pathlib
import sys
import time

from gpicl_flax.cli import console, outputs
from gpicl_flax.errors import UsageError
from gpicl_flax.runtime import backend
from gpicl_flax.terminal import durations

# Imports inside the subcommands keep `gpicl --help` instant.


def add(commands) -> None:
    """Adds `datasets` and its subcommands to the subparsers of `gpicl`."""
    parser = commands.add_parser(
        "datasets",
        help="list, prepare, import, show or embed base datasets",
        description="Base datasets: what tasks are made from. They are kept where TFDS keeps its datasets.",
    )
    subcommands = parser.add_subparsers(metavar="COMMAND", required=True)

    _add(
        subcommands,
        "list",
        _list,
        "list base datasets: what there is, where, how many examples, whether it is ready",
        "Lists the built-in base datasets, the paper's, and those that are found in the folder of TFDS.",
    )

    needed = _add(
        subcommands,
        "needed",
        _needed,
        "print which prepared base datasets a run or a sweep reads, and where they are",
        "Prints the name and the folder, with a tab between, of every prepared base dataset that the runs train or "
        "meta-test on, so that it can be copied to where they run. Left out are those that come with the package, and "
        "runs with TaskDistribution.data_dir, whose data are to be there already. One that is not prepared is an "
        "error, and so is a path.",
    )
    console.add_gin(needed, required=True)
    console.add_pattern(needed, "--only")

    prepare = _add(
        subcommands,
        "prepare",
        _prepare,
        "download and prepare datasets of TFDS",
        "Downloads datasets of TFDS and prepares them in the array_record format. Needs a network and TensorFlow (the "
        "extra `tensorboard`).",
    )
    prepare.add_argument("names", nargs="+", metavar="NAME", help="name in TFDS, such as mnist, cifar10, svhn_cropped")

    importing = _add(
        subcommands,
        "import",
        _import,
        "make a base dataset of files",
        "Makes a base dataset of image files: a TFDS dataset of its own, in the array_record format. Images are one "
        "path, a complete .npz file (train_images, train_labels, test_images, test_labels), a folder of MNIST's idx "
        "files, or a folder with train/ and test/ folders of class folders of PNGs or JPEGs; or two paths, training "
        "and test, of arrays (.npy, .npz, idx, idx.gz; give the labels, too) or folders of class folders; or one of "
        "these and --test_fraction.",
    )
    importing.add_argument("name", metavar="NAME", help="name of the new base dataset: a-z, 0-9 and _")
    importing.add_argument("--images", nargs="+", required=True, metavar="PATH", help="images: training, then test")
    importing.add_argument("--labels", nargs="+", default=[], metavar="PATH", help="labels: training, then test")
    importing.add_argument(
        "--test_fraction", type=float, metavar="F", help="make the test split of this share, drawn at random"
    )

    show = _add(
        subcommands,
        "show",
        _show,
        "draw a contact sheet of a base dataset, raw and as tasks",
        "Draws examples of every class, and the same examples projected and relabelled by three tasks.",
    )
    show.add_argument(
        "name", metavar="NAME", help="base dataset: a name or a path, as in TaskDistribution.base_dataset"
    )
    show.add_argument(
        "--input_shape", nargs=3, type=int, metavar=("H", "W", "C"), help="resize to this (default: as the data are)"
    )
    show.add_argument("--seed", type=int, default=0, help="seed of the tasks (default %(default)s)")
    show.add_argument("--out", metavar="FILE", help="PNG file (default: NAME.png here)")

    embed = _add(
        subcommands,
        "embed",
        _embed,
        "make a base dataset of pretrained features",
        "Maps a base dataset through a frozen ImageNet network without its last layer (Fig 10 and 12) and keeps the "
        "standardised features as a base dataset of their own. Needs Keras (the extra `embeddings`).",
    )
    embed.add_argument("name", metavar="NAME", help="base dataset of images")
    embed.add_argument("--as", dest="new_name", metavar="NEW_NAME", help="of the features (default: NAME_ENCODER)")
    embed.add_argument("--encoder", default="resnet50", help="network (default %(default)s: 2,048 features)")
    embed.add_argument(
        "--weights",
        default="imagenet",
        metavar="FILE",
        help="file of its weights; default %(default)s, which Keras downloads; `random` is for tests only",
    )
    embed.add_argument(
        "--image_size", type=int, default=224, metavar="N", help="images are resized to N x N (default %(default)s)"
    )
    embed.add_argument("--batch_size", type=int, default=64, metavar="N", help="images at once (default %(default)s)")


def _add(subcommands, name: str, command, summary: str, description: str) -> argparse.ArgumentParser:
    parser = subcommands.add_parser(name, help=summary, description=description)
    parser.set_defaults(command=command)
    parser.add_argument(
        "--data_dir", metavar="FOLDER", help="folder of TFDS (default: $TFDS_DATA_DIR or ~/tensorflow_datasets)"
    )
    return parser


def _list(arguments: argparse.Namespace) -> None:
    from gpicl_flax.tasks.datasets import listing

    print(listing.as_table(arguments.data_dir))


def _needed(arguments: argparse.Namespace) -> None:
    from gpicl_flax.config import parse
    from gpicl_flax.sweep import needs

    backend.check()
    config = parse(arguments.gin_file, arguments.gin_bindings)
    found, missing = needs.datasets(config, arguments.only, arguments.data_dir)
    if missing:
        raise UsageError(next(iter(missing.values())))
    for name, folder in found.items():
        print(f"{name}\t{folder}")


def _prepare(arguments: argparse.Namespace) -> None:
    from gpicl_flax.tasks.datasets import tfds_store

    for name in arguments.names:
        print(tfds_store.prepare(name, arguments.data_dir))


def _import(arguments: argparse.Namespace) -> None:
    from gpicl_flax.tasks.datasets.importing import import_dataset

    path = import_dataset(
        arguments.name,
        arguments.images,
        arguments.labels,
        test_fraction=arguments.test_fraction,
        data_dir=arguments.data_dir,
    )
    print(path)


def _show(arguments: argparse.Namespace) -> None:
    from etils import epath

    from gpicl_flax.tasks import contact_sheet
    from gpicl_flax.tasks.datasets.base_dataset import load_base_dataset

    backend.check()
    if not 0 <= arguments.seed < 2**32:
        raise UsageError(f"--seed must be in 0..2**32-1, not {arguments.seed}")
    if arguments.input_shape and min(arguments.input_shape) < 1:
        raise UsageError("--input_shape must be three positive numbers")
    path = epath.Path(arguments.out or f"{epath.Path(arguments.name).stem}.png")
    outputs.check_folder(str(path.parent))
    if path.is_dir():
        raise UsageError(f"{path}: is a folder, not a file")
    dataset = load_base_dataset(arguments.name, input_shape=arguments.input_shape, data_dir=arguments.data_dir)
    with console.figure_style():
        contact_sheet.save(contact_sheet.draw(dataset, arguments.seed), path)
    print(path)


def _embed(arguments: argparse.Namespace) -> None:
    from gpicl_flax.tasks.datasets import embedding, encoders, tfds_store
    from gpicl_flax.tasks.datasets.base_dataset import load_base_dataset

    backend.check()
    if arguments.batch_size < 1 or arguments.image_size < 1:
        raise UsageError("--batch_size and --image_size must be positive")
    suffix = "_random_weights" if arguments.weights == "random" else ""
    new_name = arguments.new_name or f"{pathlib.Path(arguments.name).stem}_{arguments.encoder}{suffix}"
    tfds_store.check_name(new_name, arguments.data_dir)
    dataset = load_base_dataset(arguments.name, data_dir=arguments.data_dir)
    encoder = encoders.load(arguments.encoder, weights=arguments.weights, image_size=arguments.image_size)
    features = embedding.embed(dataset, encoder, batch_size=arguments.batch_size, on_batch=_Progress())
    description = f"Features of {arguments.name} by {arguments.encoder} ({arguments.weights} weights)."
    print(tfds_store.write(new_name, features, arguments.data_dir, description=description))


class _Progress:
    """Shows how many images of how many are done, and the remaining time, in a line every few seconds."""

    def __init__(self):
        self._start = self._shown = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._shown > 5 or done == total:
            self._shown = now
            left = durations.in_words((now - self._start) / done * (total - done))
            print(f"{done:,}/{total:,} images  {left} left", file=sys.stderr, flush=True)
