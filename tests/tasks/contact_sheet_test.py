import matplotlib.image
import numpy as np
import pytest
from etils import epath

from gpicl_flax.errors import UsageError
from gpicl_flax.tasks import augmentation, contact_sheet, keys
from gpicl_flax.tasks.datasets.base_dataset import BaseDataset, Split


def dataset(input_shape, dtype=np.uint8):
    rng = np.random.default_rng(0)
    inputs = rng.integers(0, 256, (40, int(np.prod(input_shape)))).astype(dtype)
    split = Split(inputs, (np.arange(40) % 4).astype(np.int32))
    return BaseDataset("toy", split, split, float(inputs.mean()), float(inputs.std()), input_shape, 4)


@pytest.mark.parametrize(
    ("input_shape", "dtype", "pixels"),
    [((6, 5, 1), np.uint8, (6, 5)), ((6, 5, 3), np.uint8, (6, 5, 3)), ((30,), np.float32, (5, 5))],
)
def test_panels_show_the_examples_and_what_tasks_make_of_them(input_shape, dtype, pixels):
    data = dataset(input_shape, dtype)
    figure = contact_sheet.draw(data, seed=3)
    raw, *tasks = figure.axes
    assert [panel.get_ylabel() for panel in figure.axes] == ["raw", "task 0", "task 1", "task 2"]
    assert [text.get_text() for text in raw.texts] == ["0", "1", "2", "3"]
    height, width = pixels[:2]
    gap = max(1, width // 8)

    def first_of_class(panel, label):  # as it is drawn
        left = label * (width + gap)
        return np.asarray(panel.images[0].get_array())[:height, left : left + width]

    values = data.train.inputs.astype(np.float64)
    low, high = (0, 255) if dtype == np.uint8 else (data.train.inputs[:8].min(), data.train.inputs[:8].max())
    shown = ((values - low) / (high - low))[:, : int(np.prod(pixels))].reshape(-1, *pixels)
    np.testing.assert_allclose(first_of_class(raw, 2), shown[2], atol=1e-6)
    for number, panel in enumerate(tasks):
        task = augmentation.make_task(
            keys.task_key(3),
            np.uint32(number),
            num_coordinates=values.shape[1],
            num_features=values.shape[1],
            num_classes=4,
            permute_labels_prob=1.0,
        )
        assert [int(text.get_text()) for text in panel.texts] == task.label_permutation.tolist()
        projected = ((values[2] - data.mean) / data.std) @ np.asarray(task.projection, np.float64)
        expected = np.clip(projected / 6 + 0.5, 0, 1)[: int(np.prod(pixels))].reshape(pixels)
        np.testing.assert_allclose(first_of_class(panel, 2), expected, atol=1e-4)


def test_what_is_too_large_to_project_is_refused_and_many_classes_are_cut():
    with pytest.raises(UsageError, match="'toy' has 4,225 inputs"):
        contact_sheet.draw(dataset((65, 65, 1)))
    rng = np.random.default_rng(0)
    split = Split(rng.integers(0, 256, (60, 30), dtype=np.uint8), np.arange(60).astype(np.int32) % 30)
    figure = contact_sheet.draw(BaseDataset("many", split, split, 1.0, 1.0, (6, 5, 1), 30))
    assert len(figure.axes[0].texts) == 20


def test_the_sheet_is_saved(tmp_path):
    path = epath.Path(tmp_path / "new" / "sheet.png")
    contact_sheet.save(contact_sheet.draw(dataset((6, 5, 1))), path)
    assert matplotlib.image.imread(path).std() > 0.1
