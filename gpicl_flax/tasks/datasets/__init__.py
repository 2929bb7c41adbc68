"""Base datasets: how they are found, checked, imported, encoded and listed."""
