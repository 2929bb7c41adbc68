"""Runs with other kinds of projection."""

import numpy as np
import pytest

from gpicl_flax.errors import Preempted
from gpicl_flax.records import json_lines
from gpicl_flax.records.run_folder import RunFolder


@pytest.mark.slow
def test_the_span_of_the_images_gives_the_run_that_dense_projections_give(start, grown, tmp_path):
    folders = {projection: RunFolder(tmp_path / projection) for projection in ("span", "dense")}
    for projection, folder in folders.items():
        start(grown.override({"TaskDistribution.projection": projection}), folder)
        assert folder.read_run_info()["projection"] == {
            "form": projection,
            "basis_shape": [8, 8, 1],
            "input_shape": [10, 9, 3],
        }
    losses = [[row["loss"] for row in json_lines.read(folder.metrics)] for folder in folders.values()]
    np.testing.assert_allclose(*losses, rtol=1e-4)
    curves = [folder.latest_evaluation()["curves"] for folder in folders.values()]
    for span, dense in zip(*curves, strict=True):
        np.testing.assert_allclose(span["loss"], dense["loss"], rtol=1e-4)


@pytest.mark.slow
def test_a_gram_run_has_no_seen_tasks_and_resumes(start, contents, sigterm_at, grown, tmp_path):
    from gpicl_flax.analysis.report import run_summary

    config = grown.override({"TaskDistribution.num_tasks": None})
    whole, parts = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "parts")
    start(config, whole)
    assert whole.read_run_info()["projection"]["form"] == "gram"
    assert [curve["tasks"] for curve in whole.latest_evaluation()["curves"]] == ["unseen"]
    assert "unseen tasks, digits" in run_summary.summary(whole, whole.latest_evaluation())
    with pytest.raises(Preempted):
        start(config, parts, sigterm_at(2))
    start(config, parts)
    assert contents(parts) == contents(whole)


@pytest.mark.slow
def test_a_gram_run_on_flat_images_has_finite_losses(start, config, tmp_path):
    path, folder, rng = tmp_path / "flat.npz", RunFolder(tmp_path / "run"), np.random.default_rng(0)
    arrays = {}
    for split in ("train", "test"):
        arrays[f"x_{split}"] = np.tile(rng.integers(256, size=(100, 1, 1), dtype=np.uint8), (14, 14))
        arrays[f"y_{split}"] = np.arange(100) % 10
    np.savez(path, **arrays)
    tasks = {"base_dataset": str(path), "input_shape": (14, 14, 1), "sequence_length": 50, "num_tasks": None}
    changes = {f"TaskDistribution.{name}": value for name, value in (tasks | {"projection": "gram"}).items()}
    start(config.override(changes | {"Training.steps": 2, "MetaTest.base_datasets": [str(path)]}), folder)
    losses = [row["loss"] for row in json_lines.read(folder.metrics)]
    assert losses and np.isfinite(losses).all()
    assert np.isfinite(folder.latest_evaluation()["curves"][0]["loss"]).all()
