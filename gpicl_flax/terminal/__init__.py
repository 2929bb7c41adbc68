"""Output for people who wait: the progress line, text tables, durations, the logs of libraries."""
