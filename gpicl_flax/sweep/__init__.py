"""Sweeps: a grid in gin becomes points, each of them a run with a folder of its own."""
