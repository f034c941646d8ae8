"""Rollouts of several turns, between which the student reads what it searched for."""
