"""The needs of runs on the machine that trains them."""

import pytest

from gpicl_flax.config import parse
from gpicl_flax.errors import UsageError
from gpicl_flax.sweep import needs
from tests.launch.prepared import pretend_prepared


@pytest.fixture
def needed(tmp_path):
    """Returns what a sweep needs, with mnist prepared alone."""
    pretend_prepared(tmp_path, "mnist")
    grids = "[{'TaskDistribution.base_dataset': ['mnist', 'random', 'kmnist'], 'Run.seed': [0, 1]}]"

    def needed(*bindings, only=None):
        given = ["Run.model = @MLP()", "MetaTest.base_datasets = ['digits', 'mnist']", f"sweep.grids = {grids}"]
        return needs.datasets(parse(["gin/base.gin"], [*given, *bindings]), only, str(tmp_path))

    return needed


def test_each_dataset_that_a_point_reads_is_named_once_found_or_missing(needed, tmp_path):
    found, missing = needed()
    assert found == {"mnist": str(tmp_path / "mnist")}
    assert list(missing) == ["kmnist"] and "gpicl datasets prepare kmnist" in missing["kmnist"]


def test_points_that_are_left_out_need_nothing(needed, tmp_path):
    assert needed(only="base_dataset=random_") == ({"mnist": str(tmp_path / "mnist")}, {})
    assert needed("MetaTest.base_datasets = ['digits']", only="base_dataset=random_") == ({}, {})


def test_data_with_a_place_of_their_own_are_there_already(needed):
    assert needed("TaskDistribution.data_dir = '/mnt'") == ({}, {})


@pytest.mark.parametrize(
    ("binding", "words"),
    [
        ("MetaTest.base_datasets = ['./mine.npz']", "is a path"),
        ("MetaTest.base_datasets = ['no_such_dataset']", "no_such_dataset"),
        ("Training.steps = -1", "Training.steps"),
    ],
)
def test_what_nobody_could_prepare_is_an_error(needed, binding, words):
    with pytest.raises(UsageError, match=words):
        needed(binding)


def test_a_single_run_has_needs_as_well(tmp_path):
    config = parse(["gin/quickstart.gin"], ["MetaTest.base_datasets = ['digits', 'kmnist']"])
    found, missing = needs.datasets(config, None, str(tmp_path))
    assert found == {} and list(missing) == ["kmnist"]
