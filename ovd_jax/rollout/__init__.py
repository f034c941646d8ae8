"""Verbal rejection sampling on the host, and packing for the devices."""
