import pytest

from gpicl_flax.analysis.data import runs
from gpicl_flax.analysis.data.phases import phases


@pytest.fixture
def table(make_run, make_curve, tmp_path):
    def evaluation(last):
        return {100: [make_curve("seen", last=0.9), make_curve("unseen", last=last)]}

    make_run(tmp_path / "generalize", left_at=50, evaluations=evaluation(0.35))
    make_run(tmp_path / "overfit", left_at=50, evaluations=evaluation(0.25), num_tasks=64)
    make_run(tmp_path / "nothing_to_overfit", left_at=50, evaluations=evaluation(0.25))
    make_run(tmp_path / "plateau", left_at=None, evaluations=evaluation(0.12), num_tasks=64)
    make_run(tmp_path / "untested", left_at=50, evaluations={})
    make_run(tmp_path / "untested_plateau", left_at=None, evaluations={})
    make_run(tmp_path / "without_facts").run_info.unlink()
    return runs.load(tmp_path).set_index("run_id", drop=False)


def test_a_run_stands_on_its_plateau_overfits_or_generalizes(table):
    found = phases(table)
    assert found[["generalize", "overfit", "plateau"]].tolist() == ["Generalize", "Overfit", "Plateau"]
    assert found["nothing_to_overfit"] == "Plateau"
    assert found["untested_plateau"] == "Plateau"
    assert found[["untested", "without_facts"]].isna().all()


def test_the_cuts_are_arguments(table):
    assert phases(table, gain_cut=0.1)["overfit"] == "Generalize"
    assert phases(table, loss_cut=1.2)["generalize"] == "Plateau"
    assert phases(table, loss_cut=2.5)["plateau"] == "Overfit"


def test_other_numbers_of_classes_have_other_thresholds(make_run, tmp_path):
    make_run(tmp_path / "run", left_at=None, num_classes=20, evaluations={})  # chance is 3.0 nats
    assert phases(runs.load(tmp_path)).isna().all()


def test_the_gain_is_on_the_base_dataset_trained_on(make_run, make_curve, tmp_path):
    curves = [make_curve("unseen", "other", last=0.9), make_curve("unseen", last=0.2)]
    make_run(tmp_path / "run", evaluations={100: curves}, num_tasks=64)
    assert phases(runs.load(tmp_path)).tolist() == ["Overfit"]
