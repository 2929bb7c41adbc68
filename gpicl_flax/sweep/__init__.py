"""Sweeps: a grid in gin defines points, and each of them is a run with its own folder."""
