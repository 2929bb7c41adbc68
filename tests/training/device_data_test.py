import dataclasses
import logging

import jax
import numpy as np
import pytest
import scipy.ndimage

from gpicl_flax.tasks.datasets.base_dataset import Split
from gpicl_flax.tasks.families.projected_images import ProjectedImages
from gpicl_flax.tasks.projections.spec import ProjectionSpec
from gpicl_flax.training import device_data, partitioning
from gpicl_flax.training.task_batches import TaskBatches

SPLIT = Split(np.zeros((100, 10), np.uint8), np.zeros(100, np.int32))  # 1,400 bytes
FORM = ProjectionSpec("span", (9,), (9,))


@pytest.mark.parametrize(
    ("setting", "free", "expected"),
    [("auto", 5600, True), ("auto", 5599, False), ("device", 0, True), ("host", 10**12, False)],
)
def test_auto_takes_a_quarter_of_the_free_memory_and_says_what_it_did(setting, free, expected, monkeypatch, caplog):
    monkeypatch.setattr(device_data, "free_device_memory", lambda: free)
    with caplog.at_level(logging.INFO):
        assert device_data.on_device(setting, SPLIT) == expected
        device_data.log("toy", SPLIT, expected)
    (record,) = caplog.records
    where = "in device memory" if expected else "gathered by the host"
    assert record.getMessage() == f"base dataset 'toy': 100 examples (0.0 MB) {where}"


def test_one_host_without_the_memory_keeps_a_split_off_all_devices(monkeypatch):
    monkeypatch.setattr(device_data, "free_device_memory", lambda: 10**12)
    assert device_data.on_device("auto", SPLIT)
    monkeypatch.setattr(device_data.distributed, "max_over_processes", lambda own, name: max(own, 1))
    assert not device_data.on_device("auto", SPLIT)


def test_free_memory_is_the_devices_or_a_share_of_the_hosts(monkeypatch):
    class Device:
        def memory_stats(self):
            return {"bytes_limit": 1000, "bytes_in_use": 300}

    total = device_data.psutil.virtual_memory().total
    assert 0 < device_data.free_device_memory() <= total / jax.local_device_count()
    monkeypatch.setattr(jax, "local_devices", lambda: [Device()])
    assert device_data.free_device_memory() == 700


def on_mesh(mesh, dataset, projection=FORM, *, normalize=True, placement="device"):
    tasks = ProjectedImages(input_shape=projection.input_shape, sequence_length=6, normalize=normalize)
    return TaskBatches(tasks, projection, mesh, placement).put_on_mesh(dataset, dataset.train).data


def test_examples_are_those_of_the_split_or_of_the_batch_normalised(toy_dataset):
    mesh = partitioning.MeshShape(data=2).build()
    indices = np.array([[3, 7], [0, 199]], np.int32)
    inputs, labels = toy_dataset.train.inputs[indices], toy_dataset.train.labels[indices]
    data = on_mesh(mesh, toy_dataset, normalize=True)
    assert data.split[0].dtype == np.uint8
    empty = on_mesh(mesh, toy_dataset, placement="host")
    assert empty.split is None
    for found in (
        data.examples({"example_indices": indices}),
        empty.examples({"inputs": inputs, "labels": labels}),
    ):
        expected = (inputs - np.float64(toy_dataset.mean)) / toy_dataset.std
        np.testing.assert_allclose(found.coordinates, expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(found.labels, labels)
    plain = on_mesh(mesh, toy_dataset, normalize=False)
    np.testing.assert_allclose(plain.examples({"example_indices": indices}).coordinates, inputs / 255, rtol=1e-6)


def test_examples_smaller_than_the_input_shape_are_their_coordinates_in_the_runs_basis(toy_dataset):
    """The stored 3x3x1 images, as inputs of 5x4x3: the inner products are those of the grown and normalised images."""
    stored, shape = (3, 3, 1), (5, 4, 3)
    dataset = dataclasses.replace(toy_dataset, input_shape=shape, stored_shape=stored)
    projection = ProjectionSpec("span", stored, shape)
    data = on_mesh(partitioning.MeshShape(data=1).build(), dataset, projection)
    found = np.asarray(data.examples({"example_indices": np.arange(6)[None]}).coordinates[0], np.float64)
    assert found.shape == (6, 9)
    images = dataset.train.inputs[:6].reshape(6, *stored).astype(np.float64)
    grown = scipy.ndimage.zoom(images, (1, 5 / 3, 4 / 3, 1), order=1, mode="nearest", grid_mode=True)
    grown = np.repeat((grown - dataset.mean) / dataset.std, 3, axis=-1).reshape(6, -1)
    np.testing.assert_allclose(found @ found.T, grown @ grown.T, rtol=1e-5, atol=1e-4)
