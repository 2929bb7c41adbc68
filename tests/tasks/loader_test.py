import contextlib
import dataclasses
import itertools
import os
import signal
import subprocess
import sys

import numpy as np
import psutil
import pytest

from gpicl_flax.errors import GpiclError, UsageError
from gpicl_flax.tasks.datasets import sampler
from gpicl_flax.tasks.datasets.base_dataset import Split
from gpicl_flax.tasks.families.projected_images import ProjectedImages
from gpicl_flax.tasks.loader import Loader, Stream, TrainingBatches

TASKS = ProjectedImages(num_tasks=1000, task_batch_size=8, sequence_length=5)
SPLIT = Split(
    np.random.default_rng(0).integers(0, 256, (60, 4), dtype=np.uint8),
    np.random.default_rng(1).integers(0, 10, 60).astype(np.int32),
)


def take_stacks(count, *streams, **kwargs):
    with contextlib.closing(TrainingBatches(streams, SPLIT, **kwargs)) as batches:
        return list(itertools.islice(batches, count))


def take(count, seed=0, start_step=0, **kwargs):
    """Batches of a single run, without the axis of members."""
    batches = take_stacks(count, Stream(TASKS, seed, start_step), **kwargs)
    assert all(array.shape[1] == 1 for batch in batches for array in batch.values())
    return [{name: array[:, 0] for name, array in batch.items()} for batch in batches]


def assert_equal(left, right):
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])
            assert a[key].dtype == b[key].dtype


def test_a_record_has_the_shapes_and_types_of_a_step():
    (batch,) = take(1, steps_per_batch=3)
    assert batch["task_ids"].shape == (3, 8) and batch["task_ids"].dtype == np.uint32
    assert batch["example_indices"].shape == (3, 8, 5) and batch["example_indices"].dtype == np.int32
    assert 0 <= batch["example_indices"].min() and batch["example_indices"].max() < 60


def test_gathered_examples_are_those_of_the_indices():
    for with_indices, gathered in zip(take(3, steps_per_batch=2), take(3, steps_per_batch=2, gather=True), strict=True):
        indices = with_indices["example_indices"]
        expected = {
            "task_ids": with_indices["task_ids"],
            "inputs": SPLIT.inputs[indices],
            "labels": SPLIT.labels[indices],
        }
        assert_equal([gathered], [expected])
        assert gathered["inputs"].dtype == np.uint8


def test_the_data_are_a_function_of_seed_and_step():
    assert_equal(take(5), take(5))
    assert_equal(take(2, start_step=3), take(5)[3:])
    assert (take(1)[0]["example_indices"] != take(1, seed=1)[0]["example_indices"]).any()


def test_a_batch_can_begin_at_any_step():
    (batch,) = take(1, start_step=6, steps_per_batch=4)
    for key, array in batch.items():
        np.testing.assert_array_equal(array, np.concatenate([step[key] for step in take(10)[6:]]))


def test_the_number_of_steps_a_batch_does_not_change_the_steps():
    (batch,) = take(1, steps_per_batch=4, start_step=8)
    single = take(4, start_step=8)
    for key in batch:
        np.testing.assert_array_equal(batch[key], np.concatenate([s[key] for s in single]))


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_share_the_batch_without_changing_it(processes):
    rows = np.split(np.arange(8), processes)
    parts = [take(3, local_rows=own) for own in rows]
    joined = [
        {key: np.concatenate([part[key] for part in step], axis=1) for key in step[0]}
        for step in zip(*parts, strict=True)
    ]
    assert_equal(joined, take(3))


@pytest.mark.parametrize("gather", [pytest.param(False, marks=pytest.mark.slow), True])
def test_worker_processes_do_not_change_the_data(gather):
    alone = {"gather": gather, "start_step": 4, "steps_per_batch": 2, "local_rows": np.array([1, 3, 4])}
    assert_equal(take(5, **alone, num_workers=2), take(5, **alone))


@pytest.mark.parametrize(
    ("gather", "num_workers"), [(False, 0), (True, 0), pytest.param(True, 2, marks=pytest.mark.slow)]
)
def test_members_of_a_stack_have_the_batches_of_single_runs(gather, num_workers):
    unbounded = dataclasses.replace(TASKS, num_tasks=None)
    streams = [Stream(TASKS, 0), Stream(TASKS, 7, start_step=4), Stream(unbounded, 1)]
    settings = {"gather": gather, "steps_per_batch": 2, "local_rows": np.array([1, 3, 4])}
    stacks = take_stacks(3, *streams, **settings, num_workers=num_workers)
    for index, stream in enumerate(streams):
        alone = take_stacks(3, stream, **settings)
        assert_equal([{name: x[:, index] for name, x in stack.items()} for stack in stacks],
                     [{name: x[:, 0] for name, x in batch.items()} for batch in alone])  # fmt: skip


def workers():
    """Process ids of the children of this process that were spawned for a loader."""
    children = psutil.Process().children(recursive=True)
    return [child.pid for child in children if any("spawn_main" in word for word in child.cmdline())]


@pytest.mark.slow
def test_a_worker_that_is_gone_is_one_line():
    before = set(workers())
    with contextlib.closing(TrainingBatches([Stream(TASKS, 0)], SPLIT, num_workers=1)) as batches:
        next(batches)
        for pid in set(workers()) - before:
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(GpiclError, match="a worker of the loader ended") as caught:
            for _ in range(100):
                next(batches)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_workers_leave_ctrl_c_alone_and_end_with_the_process_they_work_for(tmp_path, wait_for):
    script = tmp_path / "train.py"
    script.write_text(
        "import os, signal, sys, time\n"
        "import numpy as np, psutil\n"
        "from gpicl_flax.tasks.datasets.base_dataset import Split\n"
        "from gpicl_flax.tasks.families.projected_images import ProjectedImages\n"
        "from gpicl_flax.tasks.loader import Stream, TrainingBatches\n"
        "if __name__ == '__main__':\n"
        "    split = Split(np.zeros((60, 4), np.uint8), np.zeros(60, np.int32))\n"
        "    tasks = ProjectedImages(task_batch_size=8, sequence_length=5)\n"
        "    batches = TrainingBatches([Stream(tasks, 0)], split, gather=True, num_workers=2)\n"
        "    for _ in range(4): next(batches)  # until both have begun\n"
        "    children = [child.pid for child in psutil.Process().children(recursive=True)]\n"
        "    for pid in children: os.kill(pid, signal.SIGINT)\n"
        "    for _ in range(50): next(batches)\n"
        "    print(*children, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    result = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=600, check=False)
    children = [int(pid) for pid in result.stdout.split()]
    assert len(children) >= 2, result.stderr
    wait_for(lambda: not any(map(psutil.pid_exists, children)))


@pytest.mark.parametrize("num_examples", [20, 70, 5000])
def test_examples_are_uniform_and_distinct_within_a_sequence(num_examples):
    indices = sampler.draw_example_indices(np.random.default_rng(0), 20_000, 8, num_examples)
    assert (np.diff(np.sort(indices, axis=1), axis=1) > 0).all()
    # Every position is uniform over the examples, by the tenths of their range.
    tenths = indices * 10 // num_examples
    for position in tenths.T:
        np.testing.assert_allclose(np.bincount(position, minlength=10) / 20_000, 0.1, atol=0.011)


def test_a_sequence_can_take_every_example():
    indices = sampler.draw_example_indices(np.random.default_rng(0), 50, 12, 12)
    assert (np.sort(indices, axis=1) == np.arange(12)).all()
    assert len({tuple(row) for row in indices}) == 50  # in another order each


def test_a_sequence_resamples_one_group_uniformly():
    indices = sampler.draw_example_indices(np.random.default_rng(0), 20_000, 7, 50, group_size=10)
    groups = indices // 10
    assert (groups == groups[:, :1]).all()
    np.testing.assert_allclose(np.bincount(groups[:, 0], minlength=5) / 20_000, 0.2, atol=0.015)
    for position in (indices % 10).T:
        np.testing.assert_allclose(np.bincount(position, minlength=10) / 20_000, 0.1, atol=0.011)
    # With replacement: seven of ten are all different with probability 10! / 3! / 10^7.
    distinct = (np.diff(np.sort(indices, axis=1), axis=1) > 0).all(axis=1).mean()
    assert distinct == pytest.approx(0.0605, abs=0.006)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"placement": "gpu"}, "Loader.placement must be one of auto, device, host"),
        ({"num_workers": -1}, "Loader.num_workers must not be negative"),
        ({"num_workers": 0.5}, "Loader.num_workers must be of type int"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, words):
    with pytest.raises(UsageError, match=words):
        Loader(**settings)
