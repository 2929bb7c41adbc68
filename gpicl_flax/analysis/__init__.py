"""Reads run folders, or the tables made from them, and nothing else: statistics, tables, figures, reports. It loads no model."""
