"""Base datasets: where they come from, how they are checked, imported, encoded and listed."""
