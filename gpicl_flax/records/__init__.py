"""What a run leaves behind: its folder, its metrics log and the plateau rule. Training writes it, analysis reads it."""
