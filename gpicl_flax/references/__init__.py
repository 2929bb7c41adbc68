"""Predictors that a learner is measured against: known optima, simple rules, and learners with a gradient step inside.

Online SGD and MAML stand behind the interface of the sequence models. Every other reference is a function of whole
sequences that predicts each position from the examples before it, for all positions at once.
"""

from gpicl_flax.references.maml import MAML
from gpicl_flax.references.online_sgd import OnlineSGD

__all__ = ["MAML", "OnlineSGD"]
