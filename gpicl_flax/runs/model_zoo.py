"""Lists every sequence model and baseline, with its sizes and what its state consists of."""

import dataclasses
from typing import Any

from gpicl_flax import models, references
from gpicl_flax.terminal import text_table

MODELS: tuple[type[models.SequenceModel], ...] = (
    models.Transformer,
    models.LSTM,
    models.OuterProductLSTM,
    models.VSML,
    models.VSMLWithoutSymmetries,
    models.DeltaNet,
    models.LinearAttention,
    models.RetNet,
    models.Mamba2,
    models.GLA,
    models.MLSTM,
    models.KDA,
    models.RWKV7,
    models.RGLRU,
    models.SlidingWindowTransformer,
    models.Hybrid,
    models.MLP,
    references.OnlineSGD,
    references.MAML,
)


def as_table(num_features: int, sequence_length: int, predicts: str = models.CLASSES) -> str:
    """Returns every model that can predict something, with its default settings, sizes and parts of the exact state.

    Args:
      num_features: X.
      sequence_length: T, the examples that the state has seen.
      predicts: what the models predict, one of `models.PREDICTIONS`.
    """
    rows = [("model", *models.SIZE_NAMES.values(), "parts of the state", "settings")]
    for cls in (cls for cls in MODELS if predicts in cls.predictable):
        longest: dict[str, Any] = {"max_length": sequence_length} if hasattr(cls, "max_length") else {}
        model = cls(**longest, predicts=predicts)
        sizes = models.sizes(model, num_features, sequence_length)
        parts = models.state_parts(model, num_features, sequence_length)
        state = ", ".join(f"{name} {size:,}" for name, size in parts.items()) or "none"
        rows.append((cls.__name__, *(f"{sizes[key]:,}" for key in models.SIZE_NAMES), state, _settings(model)))
    return text_table.render(rows, right=range(1, 1 + len(models.SIZE_NAMES)))


def _settings(model: models.SequenceModel) -> str:
    """Returns the settings that are the model's own, as far as they are plain values."""
    common = {field.name for field in dataclasses.fields(models.InContextModel)}
    values = {f.name: getattr(model, f.name) for f in dataclasses.fields(model) if f.name not in common}
    if isinstance(model, models.Hybrid):
        values["pattern"] = [type(part).__name__ for part in model.pattern]
    plain = (bool, int, float, str, list, tuple)
    return " ".join(f"{name}={value!r}".replace(" ", "") for name, value in values.items() if type(value) in plain)
