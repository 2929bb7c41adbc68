"""Statistics of arrays; nothing here knows about runs."""
