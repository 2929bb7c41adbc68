"""Predictors that remain when training is over: a learner, ensembles of its members, the scikit-learn classifier."""
