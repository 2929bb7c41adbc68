"""The quickstart learns, whatever the seed. Minutes, so it runs with `make test-slow` only."""

import pytest

from gpicl_flax.analysis.report import run_summary
from gpicl_flax.config import parse
from gpicl_flax.records.run_folder import RunFolder
from gpicl_flax.runs.execute import RunSpec, execute
from gpicl_flax.runtime.preemption import StopRequest


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_unseen_tasks_made_from_test_images_are_learned(seed, tmp_path):
    folder = RunFolder(tmp_path / "run")
    config = parse(["gin/quickstart.gin"], [f"Run.seed = {seed}", "MeshShape.data = 1"])
    execute([RunSpec.from_config(config, folder)], StopRequest())
    (curve,) = (c for c in folder.latest_evaluation()["curves"] if c["tasks"] == "unseen")
    assert curve["accuracy"][-1] >= 0.65
    # Chance, by a bound that five seeds together break once in a thousand times.
    assert curve["accuracy"][0] == pytest.approx(0.1, abs=0.025)
    assert "plateau was left by" in run_summary.plateau_sentence(folder)
