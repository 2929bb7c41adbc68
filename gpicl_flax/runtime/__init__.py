"""The processes of a run and their machine: cooperation of several hosts, preemption, caches."""
