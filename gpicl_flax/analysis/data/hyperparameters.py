"""The hyperparameters of a run that figures have axes for, from the bindings that the run used."""

import math
from typing import Any

from gpicl_flax.analysis.data.one_run import OneRun

PIXELS, FEATURES = "raw pixels", "frozen features"

# The argument that sets the size of each model.
_WIDTHS = {
    "Transformer": "model_size",
    "DeltaNet": "model_size",
    "LinearAttention": "model_size",
    "RetNet": "model_size",
    "Mamba2": "model_size",
    "GLA": "model_size",
    "MLSTM": "model_size",
    "KDA": "model_size",
    "RWKV7": "model_size",
    "RGLRU": "model_size",
    "Hybrid": "model_size",
    "SlidingWindowTransformer": "model_size",
    "MLP": "hidden_size",
    "LSTM": "hidden_size",
    "OuterProductLSTM": "size",
    "VSML": "hidden_size",
    "VSMLWithoutSymmetries": "grid_size",
}


def values(run: OneRun) -> dict[str, Any]:
    """Returns the columns of a run; NaN or None where its configuration does not define them.

    Columns:
      width: the model size of a Transformer, the hidden size of an MLP or LSTM, ...
      num_layers: the number of layers.
      optimizer: the name of its configurable.
      learning_rate, eps, weight_decay: the arguments of the optimiser.
      inputs: 'raw pixels', or 'frozen features' of a pretrained encoder.
    """
    settings, model = run.settings, run.run_info.get("model")
    optimizer = settings.get("Run.optimizer", "").removeprefix("@").removesuffix("()")
    name = optimizer.rpartition("/")[2]
    shape = settings.get("TaskDistribution.input_shape")
    return {
        "width": _number(settings, f"{model}.{_WIDTHS.get(str(model))}"),
        "num_layers": _number(settings, f"{model}.num_layers"),
        "optimizer": name or None,
        "learning_rate": _number(settings, f"{optimizer}.learning_rate", f"{name}.learning_rate"),
        "eps": _number(settings, f"{optimizer}.eps", f"{name}.eps"),
        "weight_decay": _number(settings, f"{optimizer}.weight_decay", f"{name}.weight_decay"),
        "inputs": None if shape is None else PIXELS if shape.count(",") == 2 else FEATURES,
    }


def _number(settings: dict[str, str], *names: str) -> float:
    """Returns the first of the settings that exists, if it is a number."""
    try:
        return float(next(settings[name] for name in names if name in settings))
    except (StopIteration, ValueError):
        return math.nan
