"""The coordinate check: changes of activations are of one size at all widths with muP, and not without."""

import numpy as np
import pytest

from gpicl_flax.analysis.data import coordinates
from gpicl_flax.config import parse
from gpicl_flax.errors import UsageError
from gpicl_flax.runs import coordinate_check
from gpicl_flax.runs.run import resolve

TINY = [
    "MeshShape.data = 1", "adam.eps_root = 0.0", "adam.learning_rate = 3e-3", "Training.steps_per_dispatch = 50",
]  # fmt: skip
TASKS = [
    "Run.tasks = @NoisyLinearRegression()", "NoisyLinearRegression.sequence_length = 4",
    "NoisyLinearRegression.task_batch_size = 16",
]  # fmt: skip
# Of classes, whose many logits are less noisy than one number.
IMAGES = [
    "Run.tasks = @TaskDistribution()",
    "TaskDistribution.base_dataset = 'random'",
    "TaskDistribution.input_shape = (2, 2, 1)",
    "TaskDistribution.sequence_length = 4",
    "TaskDistribution.task_batch_size = 16",
    "MetaTest.base_datasets = ('random',)",
]
MODELS = {
    "Transformer": ["Transformer.num_layers = 1", "Transformer.model_size = 16", "Transformer.num_heads = 2",
                    "Transformer.key_size = 8", "Transformer.mlp_ratio = 1"],
    "LSTM": ["LSTM.hidden_size = 32"],
    "MLP": ["MLP.hidden_size = 8"],
    "OuterProductLSTM": ["OuterProductLSTM.size = 8", "OuterProductLSTM.num_heads = 2"],
}  # fmt: skip


@pytest.fixture
def run():
    """(model, bindings) -> a tiny run of a model."""

    def made(name, *bindings, tasks=TASKS):
        return resolve(
            parse(["gin/parts/run.gin"], [*TINY, *tasks, f"Run.model = @{name}()", *MODELS[name], *bindings])
        ).run

    return made


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in MODELS if name != "MLP"])
def test_mup_is_flat_and_the_standard_parametrisation_is_not(name, run):
    own = run(name, tasks=IMAGES)
    rows = coordinate_check.check(own, values=[own.model.width, 8 * own.model.width], seeds=[0], at_steps=[1, 2])
    slopes = coordinates.slopes(coordinates.table(rows))
    found = {verdict.parametrization: verdict for verdict in coordinates.verdicts(slopes)}
    assert found["mup"].flat, found["mup"].words
    assert not found["standard"].flat and abs(found["standard"].slope) > 2 * abs(found["mup"].slope)
    # What only reads the inputs, which do not grow, changes alike.
    first = slopes[slopes["layer"].isin(["embedding", "mlp_0"])]
    assert first["change"].abs().max() < 0.1
    assert {"logits", "hidden" if "LSTM" in name else "block_0/query"} <= set(slopes["layer"])


@pytest.mark.slow
def test_a_check_records_every_layer_at_every_width(run):
    rows = list(coordinate_check.check(run("MLP"), values=[8, 32], parametrizations=["mup"], seeds=[0], at_steps=[1]))
    assert [row[:6] for row in rows] == [
        ("mup", "width", width, 1, 0, layer) for width in (8, 32) for layer in ("logits", "mlp_0", "mlp_1")
    ]
    # Adam's first step moves each weight by the rate, over the growth of fan-in: 3e-3 x X for inputs of size one.
    for row in rows:
        assert 0 < row.change < 0.05 and 0.05 < row.size < 3
    hidden = [row.change for row in rows if row.layer == "mlp_1"]
    assert 0.5 < hidden[1] / hidden[0] < 2


@pytest.mark.slow
def test_the_residual_stream_is_flat_in_depth(run):
    own = run("Transformer", "Transformer.model_size = 32", "Transformer.num_heads = 4", tasks=IMAGES)
    rows = coordinate_check.check(own, axis="depth", values=[1, 4], seeds=[0, 1], at_steps=[1])
    slopes = coordinates.slopes(coordinates.table(rows)).set_index(["parametrization", "layer"])["change"]
    assert {"last block/query", "last block", "logits", "embedding"} <= set(slopes["mup"].index)
    assert abs(slopes["mup", "last block"]) < 0.25 and slopes["standard", "last block"] > 0.35


def test_slopes_are_those_of_powers_over_all_seeds():
    def row(width, layer, size, change, seed):
        return coordinate_check.Row("mup", "width", width, 8, seed, layer, size, change)

    rows = [row(w, "logits", w**-0.5 * noise, 3 * w**0.25 * noise, seed)
            for w in (8, 16, 64) for seed, noise in enumerate((0.5, 2.0))]  # fmt: skip
    rows += [row(w, "dead", 0.0, 0.0, 0) for w in (8, 16, 64)]
    slopes = coordinates.slopes(coordinates.table(rows)).set_index("layer")
    np.testing.assert_allclose(slopes.loc["logits", ["size", "change"]].astype(float), [-0.5, 0.25], atol=1e-12)
    assert slopes.loc["dead", ["size", "change"]].isna().all()
    (flat,), (steep,) = (coordinates.verdicts(slopes.reset_index(), tolerance) for tolerance in (0.3, 0.2))
    assert flat.flat and not steep.flat
    assert flat.words == ("mup: flat in width: the largest slope of a change is +0.25 (logits), the tolerance 0.3")


def test_what_cannot_be_checked_is_refused(run):
    with pytest.raises(UsageError, match="at least two widths, not 16"):
        next(coordinate_check.check(run("Transformer"), values=[16]))
    with pytest.raises(UsageError, match="Transformer.num_heads = 2 grows with the width and would be 2.5"):
        next(coordinate_check.check(run("Transformer"), values=[16, 20]))
    with pytest.raises(UsageError, match="LSTM has no residual blocks"):
        next(coordinate_check.check(run("LSTM"), axis="depth"))
