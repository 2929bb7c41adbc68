import numpy as np
import pytest

from gpicl_flax.errors import UsageError
from gpicl_flax.tasks.datasets import sources, tfds_store


def test_digits_are_split_once_and_without_overlap():
    raw, again = sources.load("digits"), sources.load("digits")
    assert (len(raw.train.inputs), len(raw.test.inputs)) == (1437, 360)
    np.testing.assert_array_equal(raw.train.inputs, again.train.inputs)
    everything = np.concatenate([raw.train.inputs, raw.test.inputs])
    assert everything.max() == 255
    # Every digit of scikit-learn's file is in exactly one split.
    import sklearn.datasets

    original = np.round(sklearn.datasets.load_digits().images * (255 / 16)).astype(np.uint8)
    assert sorted(map(bytes, everything)) == sorted(map(bytes, original))
    assert set(raw.train.labels) == set(raw.test.labels) == set(range(10))


@pytest.mark.parametrize("name", ["random", "random_own_labels"])
def test_random_is_groups_of_ten_uniform_points(name):
    raw = sources.load(name, input_shape=(4, 4, 3))
    assert raw.group_size == 10
    for inputs, labels in (raw.train, raw.test):
        assert inputs.shape == (10_000, 4, 4, 3) and inputs.dtype == np.uint8
        np.testing.assert_allclose(np.bincount(inputs.reshape(-1), minlength=256) / inputs.size, 1 / 256, rtol=0.15)
        assert set(labels) == set(range(10))
        distinct = np.array([len(set(group)) for group in labels.reshape(-1, 10)])
        if name == "random_own_labels":
            assert (distinct == 10).all()
        else:  # of ten uniform labels, 10 (1 - 0.9^10) = 6.51 are different on average
            assert distinct.mean() == pytest.approx(6.51, abs=0.1)
            np.testing.assert_allclose(np.bincount(labels) / 10_000, 0.1, atol=0.012)
    assert not (raw.train.inputs == raw.test.inputs).all(axis=(1, 2, 3)).any()
    np.testing.assert_array_equal(sources.load(name, input_shape=(4, 4, 3)).test.inputs, raw.test.inputs)
    assert sources.load(name).train.inputs.shape[1:] == (32, 32, 3)  # the paper's


def test_a_path_is_read_as_files_and_anything_else_as_tfds(tmp_path, raw, arrays, write_idx, assert_same, monkeypatch):
    np.savez(tmp_path / "data.npz", **arrays)
    assert_same(sources.load(str(tmp_path / "data.npz")), raw)
    write_idx(tmp_path)
    assert_same(sources.load(str(tmp_path)), raw)
    monkeypatch.chdir(tmp_path.parent)
    assert_same(sources.load(f"./{tmp_path.name}"), raw)
    tfds_store.write("my_digits", raw, str(tmp_path / "tfds"), description="")
    assert_same(sources.load("my_digits", data_dir=str(tmp_path / "tfds")), raw)
    monkeypatch.chdir(tmp_path / "tfds")  # where a folder has the same name
    assert_same(sources.load("my_digits", data_dir="."), raw)
    with pytest.raises(UsageError, match="nosuchuser"):
        sources.load("~nosuchuser/data.npz")


def test_an_unknown_name_says_what_there_is(tmp_path):
    with pytest.raises(UsageError, match=r"^unknown base dataset 'no_such' .*gpicl datasets list.*npz.*idx") as caught:
        sources.load("no_such", data_dir=str(tmp_path))
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)
