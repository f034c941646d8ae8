"""Command lines: knobs, their checks, and how a program ends."""
