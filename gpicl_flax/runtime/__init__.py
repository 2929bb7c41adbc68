"""The processes of a run and their machine: several hosts as one, preemption, caches."""
