import numpy as np
import pytest

from gpicl_flax.errors import UsageError
from gpicl_flax.tasks.families.family import FIRST_UNSEEN_ID
from gpicl_flax.tasks.families.projected_images import ProjectedImages


def test_a_bounded_number_of_tasks_is_drawn_uniformly_with_replacement():
    tasks = ProjectedImages(num_tasks=4, task_batch_size=40_000)
    ids = tasks.training_task_ids(0, np.random.default_rng(0))
    np.testing.assert_allclose(np.bincount(ids) / 40_000, 0.25, atol=0.01)


def test_an_unbounded_number_of_tasks_never_repeats_one():
    tasks = ProjectedImages(num_tasks=None, task_batch_size=8)
    ids = np.concatenate([tasks.training_task_ids(step, np.random.default_rng(0)) for step in range(50)])
    assert len(set(ids)) == 400
    # ... and the seen tasks are the first of them.
    assert set(tasks.seen_task_ids(30)) <= set(ids)


def test_sequences_can_share_a_task():
    ids = ProjectedImages(task_batch_size=12, sequences_per_task=3).training_task_ids(0, np.random.default_rng(0))
    assert ids.shape == (12,)
    assert (ids.reshape(4, 3) == ids.reshape(4, 3)[:, :1]).all()
    assert len(set(ids)) == 4


@pytest.mark.parametrize("num_tasks", [1, 5, 2**25, FIRST_UNSEEN_ID, None])
def test_seen_and_unseen_ids_never_meet(num_tasks):
    tasks = ProjectedImages(num_tasks=num_tasks)
    seen, unseen = tasks.seen_task_ids(64), tasks.unseen_task_ids(64)
    assert set(seen) == set(range(min(64, num_tasks or 64)))
    assert len(set(unseen)) == 64
    assert unseen.min() >= FIRST_UNSEEN_ID > seen.max()
    assert tasks.training_task_ids(1000, np.random.default_rng(0)).max() < FIRST_UNSEEN_ID


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"num_tasks": 0}, "num_tasks"),
        ({"num_tasks": 2**32}, "num_tasks"),
        ({"permute_labels_prob": 1.5}, "permute_labels_prob"),
        ({"task_batch_size": 10, "sequences_per_task": 4}, "multiple"),
        ({"input_shape": (8, 8)}, "input_shape"),
        ({"sequence_length": 0}, "sequence_length"),
    ],
)
def test_values_out_of_range_are_refused(settings, word):
    with pytest.raises(UsageError, match=word):
        ProjectedImages(**settings)


def test_an_input_shape_may_be_written_as_a_list():
    tasks = ProjectedImages("digits", input_shape=[4, 4, 1], sequence_length=5)
    assert tasks.input_shape == (4, 4, 1) and tasks.num_features == 16
    assert tasks.load().train.inputs.shape == (1437, 16)
    assert ProjectedImages(input_shape=[2048]).num_features == 2048


def test_a_sequence_longer_than_a_split_is_refused():
    with pytest.raises(UsageError, match="360 test examples, fewer than .* 361"):
        ProjectedImages("digits", input_shape=(8, 8, 1), sequence_length=361).load()
