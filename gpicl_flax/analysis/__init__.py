"""Reads run folders, and nothing else: tables, plateau, pictures."""
