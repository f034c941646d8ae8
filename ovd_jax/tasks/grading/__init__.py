"""Compares answers with gold answers."""
