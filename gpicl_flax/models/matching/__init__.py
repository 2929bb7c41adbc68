"""Matching initialisation: parameters under which a model compares inputs from its first step."""
