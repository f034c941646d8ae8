"""Asking models behind OpenAI-compatible servers, and what else speaks HTTP."""
