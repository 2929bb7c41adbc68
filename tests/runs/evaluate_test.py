"""A run folder, meta-tested anew."""

import json

import numpy as np
import pytest

from gpicl_flax.config import parse
from gpicl_flax.errors import UsageError
from gpicl_flax.records import json_lines
from gpicl_flax.records.run_folder import RunFolder, read_json
from gpicl_flax.records.schemas import EVALUATION
from gpicl_flax.runs.evaluate import evaluate


def test_evaluate_repeats_the_meta_test_of_the_run(undisturbed):
    before = undisturbed.latest_evaluation()
    undisturbed.evaluation(30).unlink()
    evaluate(undisturbed)
    assert undisturbed.latest_evaluation() == before


def test_evaluate_takes_other_settings(contents, undisturbed):
    before = contents(undisturbed)
    file = evaluate(undisturbed, ("MetaTest.num_sequences = 7", "MetaTest.batch_size = 3"))
    curves = read_json(file, EVALUATION)["curves"]
    file.unlink()
    assert contents(undisturbed) == before  # the run's own evaluation is still there
    assert {curve["num_sequences"] for curve in curves} == {7}
    assert all(float(7 * a).is_integer() for curve in curves for a in np.round(np.array(curve["accuracy"]) * 7, 9) / 7)


def test_evaluate_leaves_a_save_in_progress_alone(undisturbed):
    pending = undisturbed.checkpoints / "36.orbax-checkpoint-tmp"
    pending.mkdir()
    evaluate(undisturbed)
    assert pending.exists()


def test_evaluate_refuses_what_is_no_run(tmp_path, config):
    with pytest.raises(UsageError, match="not a run folder"):
        evaluate(RunFolder(tmp_path))
    folder = RunFolder(tmp_path / "new")
    folder.path.mkdir()
    folder.config.write_text(config.text)
    with pytest.raises(UsageError, match="no checkpoint yet"):
        evaluate(folder)


@pytest.mark.parametrize("model", [pytest.param("OnlineSGD", marks=pytest.mark.slow), "LSTM"])
def test_a_run_of_no_steps_is_a_meta_test(start, small_bindings, tmp_path, model):
    config = parse([], [*small_bindings, "Training.steps = 0", f"Run.model = @{model}()"])
    folder = RunFolder(tmp_path / "run")
    start(config, folder)
    assert folder.ended == "DONE"
    assert json_lines.read(folder.metrics) == []
    evaluation = folder.latest_evaluation()
    assert evaluation["step"] == 0
    assert evaluate(folder, ("MetaTest.num_sequences = 20",)).exists()
    again = read_json(evaluate(folder, ("MetaTest.num_sequences = 20",)), EVALUATION)
    assert again == evaluation
    assert np.std(evaluation["curves"][0]["loss"]) > 0


@pytest.mark.slow
def test_seen_tasks_are_the_same_for_images_of_another_size(start, grown, tmp_path):
    """The same test images, stored at the input shape instead of grown to it: the same inputs, so the same curves."""
    from gpicl_flax.tasks.datasets import sources
    from gpicl_flax.tasks.projections import input_space

    folder = RunFolder(tmp_path / "run")
    start(grown, folder)
    raw = sources.load("digits")
    arrays = {}
    for name, split in (("train", raw.train), ("test", raw.test)):
        images = input_space.growth((8, 8, 1), (10, 9, 3))(
            split.inputs.reshape(len(split.inputs), -1).astype(np.float32)
        )
        arrays |= {f"{name}_images": np.round(images).astype(np.uint8).reshape(-1, 10, 9, 3)}
        arrays |= {f"{name}_labels": split.labels}
    np.savez(tmp_path / "large.npz", **arrays)
    found = read_json(evaluate(folder, (f"MetaTest.base_datasets = ['{tmp_path / 'large.npz'}']",)), EVALUATION)[
        "curves"
    ]
    expected = folder.latest_evaluation()["curves"]
    assert [curve["tasks"] for curve in found] == ["seen", "unseen"]
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours["loss"], theirs["loss"], rtol=0.02)  # grey values were rounded


def test_how_projections_were_drawn_is_not_changed_afterwards(undisturbed):
    with pytest.raises(UsageError, match="drawn in the form 'span'; that cannot be changed to 'dense'"):
        evaluate(undisturbed, ("TaskDistribution.projection = 'dense'",))
    run_info = undisturbed.read_run_info()
    del run_info["projection"]
    undisturbed.run_info.write_text(json.dumps(run_info))
    with pytest.raises(UsageError, match="made by an older version"):
        evaluate(undisturbed)
