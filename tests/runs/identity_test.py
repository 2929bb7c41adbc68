"""Which configurations are one run."""

import pytest

from gpicl_flax.config import Config, Reference, parse
from gpicl_flax.runs.identity import digest

BASE = parse(["gin/base.gin"])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("Run.tensorboard", True),
        ("TaskDistribution.data_dir", "/elsewhere"),
        ("Loader.placement", "host"),
        ("Loader.num_workers", 4),
        ("fast/Loader.num_workers", 4),
        ("Run.loader", Reference("@fast/Loader()")),
        ("MeshShape.data", 4),
        ("partitioning.MeshShape.model", 2),
        ("Run.mesh", Reference("@MeshShape()")),
        ("Training.checkpoint_seconds", 60.0),
        ("Training.keep_checkpoints", 1),
        # ... and other spellings of what is there.
        ("gpicl_flax.runs.run.Run.seed", 0),
        ("gpicl_flax.run.Run.seed", 0),
        ("Run.model", Reference("@transformer.Transformer()")),
        ("TaskDistribution.input_shape", [14, 14, 1]),
    ],
)
def test_what_cannot_change_results_and_other_spellings_leave_the_digest(key, value):
    assert digest(BASE.override({key: value})) == digest(BASE)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("Run.seed", 1),
        ("Run.seed", 0.0),
        ("Run.model", Reference("@LSTM()")),
        ("Run.model", Reference("@wide/Transformer()")),
        ("wide/Transformer.num_layers", 4),
        ("Run.labels", {"intervention": "paper"}),
        ("Run.matmul_precision", "float32"),
        ("Training.checkpoint_period", 500),
        ("Training.steps_per_dispatch", 5),
        ("Training.diagnostics", None),
        ("TaskDistribution.base_dataset", "digits"),
        ("MetaTest.num_sequences", 8),
        ("MyLoader.num_workers", 4),
    ],
)
def test_what_may_change_results_changes_the_digest(key, value):
    assert digest(BASE.override({key: value})) != digest(BASE)


def test_the_order_of_bindings_does_not_count_and_imports_do():
    turned = Config(dict(reversed(BASE.bindings.items())))
    assert digest(turned) == digest(BASE)
    with_import = Config(BASE.bindings, ("import my_models",))
    assert digest(with_import) != digest(BASE)


def test_a_digest_stays_what_it_is():
    """It names folders that people keep: what changes it makes their sweeps start anew."""
    assert digest(Config({"Run.seed": 3, "Run.model": Reference("@LSTM()"), "adam.b1": 0.5})) == "2b7806e9fec4"
