"""Sequence models, one a file, behind one interface (`SequenceModel`). Nothing here knows about training."""

from gpicl_flax.models.lstm import LSTM
from gpicl_flax.models.sequence_model import SequenceModel, StateSize, count_parameters
from gpicl_flax.models.transformer import Transformer

__all__ = ["LSTM", "SequenceModel", "StateSize", "Transformer", "count_parameters"]
