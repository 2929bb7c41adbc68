"""Meta-training: the sharded step, the loop around it, optimisers, checkpoints. Writes the run folder."""
