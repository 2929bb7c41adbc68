"""The picture of recall against pairs and state."""

import numpy as np
import pytest

from gpicl_flax.analysis.data import study
from gpicl_flax.analysis.figures import recall_capacity

RECALL = {"base_dataset": {"name": "recall"}}


def evaluated(make_curve, accuracy):
    """The evaluation of a run that is equally good at all asked positions."""
    return {100: [make_curve("seen", "recall"), make_curve("unseen", "recall", first=accuracy, last=accuracy)]}


@pytest.fixture
def sweep(make_run, make_curve, tmp_path):
    """DeltaNet of 4 and 8 keys and a Transformer, with 4 and 8 pairs; and DeltaNet at a second, worse learning rate."""
    for pairs in (4, 8):
        for key_size, accuracy in ((4, 0.5), (8, 0.9)):
            for rate, left_at in (("0.01", 20), ("0.1", None)):
                own = {"state_size_exact": key_size**2, "sequence_length": 2 * pairs, "left_at": left_at}
                bound = {"DeltaNet.key_size": key_size, "Recall.num_pairs": pairs, "adam.learning_rate": rate}
                reached = accuracy - 0.01 * pairs if left_at else 0.99
                make_run(
                    tmp_path / f"{pairs}_{key_size}_{rate}", model="DeltaNet", settings=bound,
                    evaluations=evaluated(make_curve, reached), **RECALL, **own,
                )  # fmt: skip
        own = {"state_size_exact": 100 * pairs, "sequence_length": 2 * pairs}
        bound = {"Transformer.key_size": 16, "Recall.num_pairs": pairs, "adam.learning_rate": "0.01"}
        make_run(tmp_path / f"t{pairs}", settings=bound, evaluations=evaluated(make_curve, 1.0), **RECALL, **own)
    return study.load(tmp_path)


def test_the_training_loss_chooses_the_learning_rate(sweep):
    table = recall_capacity.numbers(sweep)
    delta_net = table[table["model"] == "DeltaNet"].sort_values(["state", "pairs"])
    np.testing.assert_allclose(delta_net["mean"], [0.46, 0.42, 0.86, 0.82])
    assert delta_net["key_size"].tolist() == [4, 4, 8, 8] and len(table) == 6


def test_lines_are_models_of_one_state_and_attention_is_one_line(sweep):
    by_pairs, by_keys, by_state = recall_capacity.draw(sweep).figure.axes
    lines = {line.get_label(): line for line in by_pairs.get_lines()}
    assert lines.keys() == {"DeltaNet, 16", "DeltaNet, 64", "Transformer"}
    np.testing.assert_array_equal(lines["DeltaNet, 64"].get_xdata(), [4, 8])
    np.testing.assert_allclose(lines["Transformer"].get_ydata(), [1, 1])
    # Pairs for each dimension of the keys, for matrices alone.
    ratios = [line.get_xdata().tolist() for line in by_keys.get_lines()[:-1]]
    assert ratios == [[1, 2], [0.5, 1]]
    assert [text.get_text() for text in by_state.get_legend().get_texts()] == ["4 pairs", "8 pairs"]


def test_other_tasks_have_no_such_picture(make_run, tmp_path):
    make_run(tmp_path / "run")
    chart = recall_capacity.draw(study.load(tmp_path))
    assert chart.figure is None and chart.caption == "Needs runs of Recall that are done."
