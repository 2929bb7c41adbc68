import logging

import jax
import numpy as np
import pytest

from gpicl_flax.tasks.base_dataset import Split
from gpicl_flax.training import partitioning, placement

SPLIT = Split(np.zeros((100, 10), np.uint8), np.zeros(100, np.int32))  # 1,400 bytes


@pytest.mark.parametrize(
    ("setting", "free", "expected"),
    [("auto", 5600, True), ("auto", 5599, False), ("device", 0, True), ("host", 10**12, False)],
)
def test_auto_takes_a_quarter_of_the_free_memory_and_says_what_it_did(setting, free, expected, monkeypatch, caplog):
    monkeypatch.setattr(placement, "free_device_memory", lambda: free)
    with caplog.at_level(logging.INFO):
        assert placement.on_device(setting, "toy", SPLIT) == expected
    (record,) = caplog.records
    where = "in device memory" if expected else "gathered by the host"
    assert record.getMessage() == f"base dataset 'toy': 100 examples (0.0 MB) {where}"


def test_free_memory_is_the_devices_or_a_share_of_the_hosts(monkeypatch):
    class Device:
        def memory_stats(self):
            return {"bytes_limit": 1000, "bytes_in_use": 300}

    total = placement.psutil.virtual_memory().total
    assert 0 < placement.free_device_memory() <= total / jax.local_device_count()
    monkeypatch.setattr(jax, "local_devices", lambda: [Device()])
    assert placement.free_device_memory() == 700


def test_examples_are_those_of_the_split_or_of_the_batch(toy_dataset):
    mesh = partitioning.MeshShape(data=2).build()
    indices = np.array([[3, 7], [0, 199]], np.int32)
    placed = placement.place(mesh, toy_dataset, toy_dataset.train, normalize=True)
    found = placed.examples({"example_indices": indices})
    np.testing.assert_array_equal(found.inputs, toy_dataset.train.inputs[indices])
    np.testing.assert_array_equal(found.labels, toy_dataset.train.labels[indices])
    assert found.inputs.dtype == np.uint8
    empty = placement.place(mesh, toy_dataset, None, normalize=True)
    assert empty.split is None and empty.normalization.offset == np.float32(toy_dataset.mean)
    batch = {"inputs": np.ones((2, 2, 9)), "labels": np.ones((2, 2))}
    assert empty.examples(batch) == (batch["inputs"], batch["labels"])
