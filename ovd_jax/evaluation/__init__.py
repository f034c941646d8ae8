"""Evaluation: what is asked, who solves it, what is kept, and what it amounts to."""
