"""Tokenizers and examples of the shipped models."""
