"""The inside of a learner along sequences, as arrays: predictions, attention, states."""
