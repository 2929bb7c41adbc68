"""Gin bindings: how files and texts of them are read, and which values a setting can have."""
