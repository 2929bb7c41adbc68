"""`gpicl datasets`, as a user types it."""

import jax.numpy as jnp
import numpy as np
import pytest

from gpicl_flax.cli.main import main
from gpicl_flax.records import json_lines
from gpicl_flax.records.run_folder import RunFolder
from gpicl_flax.tasks.datasets import encoders, listing, tfds_store


@pytest.fixture
def store(tmp_path):
    return str(tmp_path / "tfds")


@pytest.fixture
def npz(tmp_path):
    """Scikit-learn's digits as a file of a user."""
    from gpicl_flax.tasks.datasets import sources

    raw = sources.load("digits")
    np.savez(
        tmp_path / "mine.npz",
        train_images=raw.train.inputs,
        train_labels=raw.train.labels,
        test_images=raw.test.inputs,
        test_labels=raw.test.labels,
    )
    return str(tmp_path / "mine.npz")


def run(*arguments):
    return main(["datasets", *arguments])


@pytest.mark.slow
def test_import_list_show_and_train(tmp_path, store, npz, small_bindings, capsys):
    assert run("import", "my_digits", "--images", npz, "--data_dir", store) == 0
    printed = capsys.readouterr()
    assert printed.out.split() == [f"{store}/my_digits/1.0.0"]
    assert printed.err == f"writing 1,797 examples to {store}/my_digits\n"

    assert run("list", "--data_dir", store) == 0
    rows = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()}
    assert rows["my_digits"] == ["1,437", "360", "8x8x1", "ready", f"{store}/my_digits/1.0.0"]
    assert rows["digits"] == ["1,437", "360", "8x8x1", "ready", "scikit-learn"]
    assert rows["kmnist"] == ["60,000", "10,000", "28x28x1", "not", "prepared", f"{store}/kmnist"]
    assert {"mnist", "fashion_mnist", "cifar10", "svhn_cropped", "random", "random_own_labels"} <= rows.keys()

    sheet = tmp_path / "sheet.png"
    assert run("show", "my_digits", "--data_dir", store, "--out", str(sheet)) == 0
    assert sheet.stat().st_size > 5000 and capsys.readouterr().out.strip() == str(sheet)
    assert run("show", "my_digits", "--data_dir", store, "--input_shape", "4", "4", "3", "--out", str(sheet)) == 0

    bindings = [*small_bindings, "Run.model = @MLP()", "Training.steps = 10", "Training.checkpoint_period = 10",
                "TaskDistribution.base_dataset = 'my_digits'", f"TaskDistribution.data_dir = '{store}'",
                "MetaTest.base_datasets = ['my_digits', 'random']"]  # fmt: skip
    folder = RunFolder(tmp_path / "run")
    arguments = ["train", "--gin_file", "gin/base.gin", "--workdir", str(folder)]
    capsys.readouterr()
    assert main([*arguments, *(f"--gin_bindings={binding}" for binding in bindings)]) == 0
    assert capsys.readouterr().err.count("base dataset 'my_digits': 1,437 examples (0.0 MB) in device memory\n") == 1
    assert json_lines.read(folder.metrics)[-1]["step"] == 10
    assert {curve["base_dataset"] for curve in folder.latest_evaluation()["curves"]} == {"my_digits", "random"}
    assert len(folder.read_run_info()["base_dataset"]["fingerprint"]) == 16


@pytest.mark.slow
def test_embed_and_train_on_the_features(tmp_path, store, small_bindings, capsys, monkeypatch):
    def encode(weights, images):  # a network of one layer in the place of one that takes minutes
        return images.reshape(len(images), -1).astype(jnp.float32) @ weights

    matrix = np.random.default_rng(0).normal(size=(64, 12)).astype(np.float32)
    tiny = encoders.Encoder("tiny", 8, 12, encode, matrix)
    monkeypatch.setattr(encoders, "load", lambda name, *, weights, image_size: tiny)
    assert run("embed", "digits", "--data_dir", store, "--batch_size", "500") == 0
    printed = capsys.readouterr()
    assert printed.out.strip() == f"{store}/digits_resnet50/1.0.0"
    assert "1,797/1,797 images" in printed.err
    assert run("list", "--data_dir", store) == 0
    assert ["digits_resnet50", "1,437", "360", "12", "ready"] in [
        line.split()[:5] for line in capsys.readouterr().out.splitlines()
    ]
    assert run("show", "digits_resnet50", "--data_dir", store, "--out", str(tmp_path / "sheet.png")) == 0

    bindings = [*small_bindings, "Run.model = @MLP()", "Training.steps = 10", "Training.checkpoint_period = 10",
                "TaskDistribution.base_dataset = 'digits_resnet50'", f"TaskDistribution.data_dir = '{store}'",
                "TaskDistribution.input_shape = (12,)", "MetaTest.base_datasets = ['digits_resnet50']"]  # fmt: skip
    arguments = ["train", "--gin_file", "gin/base.gin", "--workdir", str(tmp_path / "run")]
    assert main([*arguments, *(f"--gin_bindings={binding}" for binding in bindings)]) == 0
    run_info = RunFolder(tmp_path / "run").read_run_info()["base_dataset"]
    assert abs(run_info["mean"]) < 0.2 and 0.3 < run_info["std"] < 1  # of tanh of a standardised feature
    assert run("embed", "digits_resnet50", "--as", "twice", "--data_dir", store) == 2
    assert "holds features already" in capsys.readouterr().err


def test_needed_names_what_the_points_of_a_sweep_read(tmp_path, store, npz, capsys):
    for name in ("mine", "others"):
        assert run("import", name, "--images", npz, "--data_dir", store) == 0
    (tmp_path / "sweep.gin").write_text("""
        include 'gin/base.gin'
        Run.model = @MLP()
        MetaTest.base_datasets = ['digits', 'others']
        sweep.grids = [{'TaskDistribution.base_dataset': ['mine', 'random', 'kmnist'], 'Run.seed': [0, 1]}]
    """)
    capsys.readouterr()
    needed = ["needed", "--gin_file", str(tmp_path / "sweep.gin"), "--data_dir", store]
    assert run(*needed, "--only", "base_dataset=mine") == 0
    assert capsys.readouterr().out == f"mine\t{store}/mine\nothers\t{store}/others\n"
    assert run(*needed, "--only", "base_dataset=random_") == 0
    assert capsys.readouterr().out == f"others\t{store}/others\n"
    # One point of the sweep needs what is not prepared.
    assert run(*needed) == 2
    printed = capsys.readouterr()
    assert "gpicl datasets prepare kmnist" in printed.err and printed.out == ""
    # Data that have a place of their own are there already.
    assert run(*needed, "--gin_bindings", "TaskDistribution.data_dir = '/mnt'") == 0
    assert capsys.readouterr().out == ""


def test_needed_of_a_single_run(store, npz, capsys):
    run("import", "mine", "--images", npz, "--data_dir", store)
    capsys.readouterr()
    needed = ["needed", "--gin_file", "gin/quickstart.gin", "--data_dir", store]
    assert run(*needed) == 0 and capsys.readouterr().out == ""  # digits come with scikit-learn
    assert run(*needed, "--gin_bindings", "MetaTest.base_datasets = ['mine', 'digits']") == 0
    assert capsys.readouterr().out == f"mine\t{store}/mine\n"
    assert run(*needed, "--gin_bindings", f"TaskDistribution.base_dataset = {npz!r}") == 2
    error = capsys.readouterr().err.strip()
    assert "is a path" in error and "gpicl datasets import" in error and "\n" not in error


def test_a_damaged_dataset_is_listed_no_more_and_its_use_is_one_line(store, npz, capsys):
    run("import", "my_digits", "--images", npz, "--data_dir", store)
    (info,) = tfds_store.data_dir_or_default(store).glob("my_digits/*/dataset_info.json")
    info.write_text("{")
    capsys.readouterr()
    assert run("list", "--data_dir", store) == 0
    assert "my_digits" not in capsys.readouterr().out
    assert run("show", "my_digits", "--data_dir", store) == 2
    assert f"'my_digits' in {store} cannot be read" in capsys.readouterr().err


def test_debians_fashion_mnist_is_listed_where_it_is(tmp_path, store, monkeypatch, capsys):
    monkeypatch.setattr(listing, "DEBIAN_FASHION_MNIST", tmp_path)
    run("list", "--data_dir", store)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.endswith(f"importable    gpicl datasets import debian_fashion --images {tmp_path}")
    monkeypatch.setattr(listing, "DEBIAN_FASHION_MNIST", tmp_path / "none")
    run("list", "--data_dir", store)
    assert "importable" not in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.skipif(not listing.DEBIAN_FASHION_MNIST.is_dir(), reason="needs Debian's dataset-fashion-mnist")
def test_debians_fashion_mnist_is_imported_pixel_for_pixel(store):
    from gpicl_flax.tasks.datasets import files

    source = str(listing.DEBIAN_FASHION_MNIST)
    assert run("import", "debian_fashion", "--images", source, "--data_dir", store) == 0
    found, expected = tfds_store.load("debian_fashion", store), files.read_dataset(listing.DEBIAN_FASHION_MNIST)
    assert len(found.train.inputs) == 60_000
    for split in ("train", "test"):
        np.testing.assert_array_equal(getattr(found, split).inputs[..., 0], getattr(expected, split).inputs)
        np.testing.assert_array_equal(getattr(found, split).labels, getattr(expected, split).labels)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["show", "no_such"], "unknown base dataset 'no_such'"),
        (["show", "mnist"], "gpicl datasets prepare mnist"),
        (["show", "digits", "--input_shape", "0", "8", "1"], "three positive numbers"),
        (["show", "digits", "--seed", "-1"], "--seed"),
        (["import", "../x", "--images", "a"], "a dataset's name"),
        (["import", "mnist", "--images", "a"], "known already"),
        (["import", "mine", "--images", "none.npz"], "no such file"),
        (["embed", "digits", "--as", "mnist"], "known already"),
        (["show", "digits", "--out", "."], "is a folder, not a file"),
        (["embed", "digits", "--encoder", "resnet9000"], "resnet50"),
        (["embed", "digits", "--batch_size", "0"], "must be positive"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(store, tmp_path, capsys, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert run(*arguments, "--data_dir", store) == 2
    error = capsys.readouterr().err.strip()
    assert words in error and "\n" not in error
    assert list(tmp_path.iterdir()) == []
