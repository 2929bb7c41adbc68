"""Statistics, tables, figures and reports of runs.

They read run folders, or the tables made from them, and nothing else. They load no model.
"""
