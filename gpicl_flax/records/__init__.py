"""The records of a run: its folder, its metrics log, and its status by these.

Training writes them, analysis reads them.
"""
