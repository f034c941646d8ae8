"""Sampling from a model; the border from device to host."""
