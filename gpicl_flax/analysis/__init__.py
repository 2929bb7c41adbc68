"""Reads run folders, and nothing else: statistics, tables, figures, reports. It loads no model."""
