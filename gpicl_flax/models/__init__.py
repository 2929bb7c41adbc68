"""Sequence models, one in each file, behind one interface (`SequenceModel`). They are independent of training."""

from gpicl_flax.models.delta_net import DeltaNet
from gpicl_flax.models.lstm import LSTM
from gpicl_flax.models.mixers.gla import GLA
from gpicl_flax.models.mixers.hybrid import Hybrid
from gpicl_flax.models.mixers.kda import KDA
from gpicl_flax.models.mixers.linear_attention import LinearAttention
from gpicl_flax.models.mixers.mamba2 import Mamba2
from gpicl_flax.models.mixers.mlstm import MLSTM
from gpicl_flax.models.mixers.ret_net import RetNet
from gpicl_flax.models.mixers.rg_lru import RGLRU
from gpicl_flax.models.mixers.rwkv7 import RWKV7
from gpicl_flax.models.mixers.sliding_window import SlidingWindowTransformer
from gpicl_flax.models.mlp import MLP
from gpicl_flax.models.outer_product_lstm import OuterProductLSTM
from gpicl_flax.models.sequence_model import (
    CLASSES,
    PREDICTIONS,
    SIZE_NAMES,
    InContextModel,
    SequenceModel,
    StatefulModel,
    StateSize,
    abstract_parameters,
    count_parameters,
    sizes,
)
from gpicl_flax.models.state_parts import state_parts
from gpicl_flax.models.transformer import Transformer
from gpicl_flax.models.vsml import VSML
from gpicl_flax.models.vsml_without_symmetries import VSMLWithoutSymmetries

__all__ = [
    "CLASSES",
    "PREDICTIONS",
    "SIZE_NAMES",
    "DeltaNet",
    "GLA",
    "Hybrid",
    "InContextModel",
    "KDA",
    "LSTM",
    "LinearAttention",
    "MLP",
    "MLSTM",
    "Mamba2",
    "OuterProductLSTM",
    "RGLRU",
    "RWKV7",
    "RetNet",
    "SequenceModel",
    "SlidingWindowTransformer",
    "StateSize",
    "StatefulModel",
    "Transformer",
    "VSML",
    "VSMLWithoutSymmetries",
    "abstract_parameters",
    "count_parameters",
    "sizes",
    "state_parts",
]
