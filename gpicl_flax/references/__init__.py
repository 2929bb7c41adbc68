"""Learners that take a gradient step inside: online SGD and MAML, behind the interface of the sequence models."""

from gpicl_flax.references.maml import MAML
from gpicl_flax.references.online_sgd import OnlineSGD

__all__ = ["MAML", "OnlineSGD"]
