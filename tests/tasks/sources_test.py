import gzip
import struct
import zipfile

import numpy as np
import pytest
import scipy.ndimage

from gpicl_flax.errors import UsageError
from gpicl_flax.tasks import sources
from gpicl_flax.tasks.base_dataset import load_base_dataset


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {
        "train_images": rng.integers(0, 256, (30, 5, 4), dtype=np.uint8),
        "train_labels": rng.integers(0, 10, 30, dtype=np.uint8),
        "test_images": rng.integers(0, 256, (20, 5, 4), dtype=np.uint8),
        "test_labels": rng.integers(0, 10, 20, dtype=np.uint8),
    }


def assert_same(raw, arrays):
    for name, array in arrays.items():
        np.testing.assert_array_equal(getattr(raw, name).reshape(array.shape), array)


def test_digits_are_split_once_and_without_overlap():
    raw, again = sources.read("digits"), sources.read("digits")
    assert (len(raw.train_images), len(raw.test_images)) == (1437, 360)
    np.testing.assert_array_equal(raw.train_images, again.train_images)
    everything = np.concatenate([raw.train_images, raw.test_images])
    assert everything.max() == 255
    # Every digit of scikit-learn's file is in exactly one split.
    import sklearn.datasets

    original = np.round(sklearn.datasets.load_digits().images * (255 / 16)).astype(np.uint8)
    assert sorted(map(bytes, everything)) == sorted(map(bytes, original))
    assert set(raw.train_labels) == set(raw.test_labels) == set(range(10))


def test_npz_is_read_as_it_is(tmp_path, arrays):
    np.savez(tmp_path / "data.npz", **arrays)
    assert_same(sources.read(str(tmp_path / "data.npz")), arrays)


@pytest.mark.parametrize("zipped", [False, True])
def test_idx_folder_is_read_as_it_is(tmp_path, arrays, zipped):
    for name, array in zip(sources.IDX_FILES, arrays.values(), strict=True):
        data = gzip.compress(idx(array)) if zipped else idx(array)
        (tmp_path / f"{name}{'.gz' if zipped else ''}").write_bytes(data)
    assert_same(sources.read(str(tmp_path)), arrays)


def test_tfds_dataset_is_read_without_tensorflow(tmp_path, arrays):
    write_tfds(tmp_path, arrays)
    raw = sources.read("little_digits", str(tmp_path))
    # TFDS shuffles what it writes: compare the pairs of image and label.
    for split in ("train", "test"):
        images, labels = getattr(raw, f"{split}_images"), getattr(raw, f"{split}_labels")
        written = zip(arrays[f"{split}_images"], arrays[f"{split}_labels"], strict=True)
        assert sorted((bytes(i), int(y)) for i, y in zip(images, labels, strict=True)) == sorted(
            (bytes(i), int(y)) for i, y in written
        )


def test_tfds_images_of_several_sizes_are_resized_one_by_one(tmp_path, arrays):
    rng = np.random.default_rng(1)
    sizes = [(int(h), int(w)) for h, w in rng.integers(4, 12, (20, 2))]
    images = [rng.integers(0, 256, size, dtype=np.uint8) for size in sizes]
    write_tfds(tmp_path, arrays | {"train_images": images[:10], "train_labels": np.arange(10), "test_images": images[10:],
                                   "test_labels": np.arange(10)}, shape=(None, None, 1))  # fmt: skip
    data = load_base_dataset("little_digits", image_shape=(6, 6, 1), num_classes=10, data_dir=str(tmp_path))
    assert data.train.images.shape == (10, 36)
    for image, label in zip(data.train.images, data.train.labels, strict=True):
        zoom = (6 / sizes[label][0], 6 / sizes[label][1])
        expected = scipy.ndimage.zoom(images[label].astype(float), zoom, order=1, mode="nearest", grid_mode=True)
        assert np.abs(image.reshape(6, 6) - expected).max() <= 0.5 + 1e-3


def write_tfds(folder, arrays, shape=None):
    """Writes `arrays` as the TFDS dataset little_digits, in the array_record format."""
    import tensorflow_datasets as tfds
    from PIL import Image

    class LittleDigits(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            size = shape or (*arrays["train_images"].shape[1:], 1)
            features = {"image": tfds.features.Image(shape=size), "label": tfds.features.ClassLabel(num_classes=10)}
            return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(split) for split in ("train", "test")}

        def _generate_examples(self, split):
            pairs = zip(arrays[f"{split}_images"], arrays[f"{split}_labels"], strict=True)
            for i, (image, label) in enumerate(pairs):
                yield i, {"image": Image.fromarray(image), "label": int(label)}

    LittleDigits(data_dir=folder, file_format="array_record").download_and_prepare()


def assert_refused(name, *words, data_dir=None):
    with pytest.raises(UsageError) as caught:
        sources.read(str(name), data_dir)
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message


def test_unknown_dataset_names_the_choices():
    assert_refused("no_such_dataset", "unknown base dataset", "digits", ".npz", "idx")


def test_known_but_unprepared_dataset_says_where_it_looked(tmp_path):
    assert_refused("mnist", "mnist", "not prepared", str(tmp_path), "tfds build", data_dir=str(tmp_path))


def test_missing_files_are_named(tmp_path):
    assert_refused(tmp_path / "none.npz", "none.npz", "no such file")
    assert_refused(tmp_path / "none" / "folder", "no such")
    assert_refused(tmp_path, "train-images-idx3-ubyte")


def test_npz_without_a_key_names_it(tmp_path, arrays):
    del arrays["test_labels"]
    np.savez(tmp_path / "data.npz", **arrays)
    assert_refused(tmp_path / "data.npz", "no array named test_labels", "train_images")


def test_pickled_objects_are_never_loaded(tmp_path, arrays):
    arrays["test_labels"] = np.array([{"a": 1}] * 20, dtype=object)
    np.savez(tmp_path / "data.npz", **arrays)
    assert_refused(tmp_path / "data.npz", "Python objects")


def test_truncated_files_are_refused(tmp_path, arrays):
    np.savez(tmp_path / "data.npz", **arrays)
    data = (tmp_path / "data.npz").read_bytes()
    (tmp_path / "data.npz").write_bytes(data[: len(data) // 2])
    assert_refused(tmp_path / "data.npz", "not a readable .npz")
    for name, array in zip(sources.IDX_FILES, arrays.values(), strict=True):
        (tmp_path / name).write_bytes(idx(array)[:-7])
    assert_refused(tmp_path, "not a readable idx file")
    (tmp_path / "text.npz").write_text("hello world")
    assert_refused(tmp_path / "text.npz", "not a zip archive")
    with zipfile.ZipFile(tmp_path / "other.npz", "w") as file:
        for name in sources.NPZ_KEYS:
            file.writestr(name, "no array")
    assert_refused(tmp_path / "other.npz", "other files than arrays")
    (tmp_path / sources.IDX_FILES[0]).write_bytes(b"hello world")
    assert_refused(tmp_path, "not a readable idx file")
