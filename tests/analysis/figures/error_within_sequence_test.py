"""Squared errors along sequences, with references beside them."""

import numpy as np
import pytest

from gpicl_flax.analysis.data import read_tables, study, write_tables
from gpicl_flax.analysis.figures import error_within_sequence
from gpicl_flax.records.run_folder import write_json

ERRORS = np.array([8.0, 6.0, 4.0])


@pytest.fixture
def make_numbers(make_run, tmp_path):
    """Makes a run whose targets are numbers, with a chance of `chance`, and references of these errors."""

    def make(name, scale, chance, **references):
        targets = {"predicts": "numbers", "score": "loss", "unit": "", "chance_loss": chance, "chance_score": chance}
        own = (scale * ERRORS).tolist()
        curve = {"base_dataset": "waves", "num_sequences": 64, "loss": own, "loss_low": own, "loss_high": own}
        tested = [curve | {"tasks": "seen"}, curve | {"tasks": "unseen", "references": references}]
        folder = make_run(
            tmp_path / name, targets=targets, base_dataset={"name": "waves"}, evaluations={100: tested},
            labels={"functions": name.rpartition("_")[0]}, seed=int(name[-1]),
        )  # fmt: skip
        run_info = folder.read_run_info()
        write_json(folder.run_info, {key: value for key, value in run_info.items() if key != "num_classes"})

    return make


def test_references_are_means_over_runs_at_their_own_positions(make_numbers, tmp_path):
    for seed in (0, 1):
        ridge = {"loss": [8.0, 2.0 + seed, 0.5]}
        make_numbers(f"linear_{seed}", 1.0 + seed, 8.0, ridge=ridge, Lasso={"loss": [0.25], "positions": [2]})
    make_numbers("tree_0", 0.1, 1.0)
    found = study.load(tmp_path)
    linear, tree = error_within_sequence.draw(found).figure.axes
    lines = {line.get_label(): line for line in linear.get_lines()}
    np.testing.assert_allclose(lines["ridge"].get_ydata(), [8.0, 2.5, 0.5])
    assert (lines["Lasso"].get_xdata().tolist(), lines["Lasso"].get_ydata().tolist()) == ([2], [0.25])
    np.testing.assert_allclose(lines["Transformer, unseen tasks"].get_ydata(), 1.5 * ERRORS)
    assert lines["ridge"].get_marker() != lines["Lasso"].get_marker()
    # Each has a scale of its own, because their chances differ.
    assert linear.get_ylim()[1] > 8 and tree.get_ylim()[1] < 2 and len(tree.get_lines()) == 3


def test_tables_keep_the_references_of_all_positions(make_numbers, tmp_path):
    make_numbers("linear_0", 1.0, 8.0, ridge={"loss": [8.0, 2.0, 0.5]})
    write_tables.write(tmp_path, tmp_path / "tables")
    kept = read_tables.read(tmp_path / "tables").runs.curves["references"]
    (references,) = filter(None, kept)
    np.testing.assert_allclose(references["ridge"][1], [8.0, 2.0, 0.5])
