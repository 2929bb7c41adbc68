"""Models that are the shared backbone with a mixer of their own, one in each file: the mixer, and its name in gin."""
