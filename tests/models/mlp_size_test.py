"""`mlp_size`: the MLP's width alone, whatever the model."""

import pytest

from gpicl_flax import models

X, T, D = 7, 6, 8
BACKBONE = [models.Transformer, models.DeltaNet, models.RWKV7, models.RGLRU, models.Hybrid]


@pytest.mark.slow
@pytest.mark.parametrize("cls", BACKBONE)
def test_a_width_of_the_mlp_changes_the_parameters_by_one_unit_at_a_time(cls):
    def count(**settings):
        return models.count_parameters(cls(num_layers=2, model_size=D, **settings), X, T)

    assert count(mlp_size=5 * D) == count(mlp_ratio=5)
    assert count(mlp_size=5 * D + 1) - count(mlp_size=5 * D) == 2 * (2 * D + 1)
    assert count() == count(mlp_ratio=4)


def test_the_channel_mix_of_rwkv_has_it_too():
    def count(size):
        return models.count_parameters(models.RWKV7(num_layers=1, model_size=D, channel_mix=True, mlp_size=size), X, T)

    assert count(11) - count(10) == 2 * D + 1
