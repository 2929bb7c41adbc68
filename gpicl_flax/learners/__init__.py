"""Predictors after training: a learner, ensembles of its members, the scikit-learn classifier."""
