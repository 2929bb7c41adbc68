"""The plain flax reference of a model."""

import dataclasses

import flax_references
import flax_state_models

from gpicl_flax.models.matrix_memory import MatrixBackbone
from gpicl_flax.models.sequence_model import SequenceModel


def reference(model: SequenceModel) -> SequenceModel:
    """Returns the flax reference with the settings of `model`."""
    name = type(model).__name__
    cls = getattr(flax_references, name, None) or getattr(flax_state_models, name)
    names = {field.name for field in dataclasses.fields(cls)} - {"parent", "name"}
    settings = {name: getattr(model, name) for name in names if hasattr(model, name)}
    if isinstance(model, MatrixBackbone) and "value_size" in names:
        settings["value_size"] = model.value_size or model.default_value_size
    return cls(**settings)
