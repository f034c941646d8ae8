"""Losses, the update, checkpoints: pure and jitted."""
