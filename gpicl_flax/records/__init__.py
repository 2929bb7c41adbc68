"""What a run leaves behind: its folder, its metrics log, and how it stands by that.

Training writes it, analysis reads it.
"""
