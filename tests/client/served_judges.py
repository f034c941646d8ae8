"""Requests, and what a server is started with."""

from ovd_jax.teacher.base import DemonstrationRequest, ScoreRequest

REQUESTS = [ScoreRequest(f"q {i}", "", f"step {i}", whole=True) for i in range(6)]


PROBLEMS = [DemonstrationRequest("q", ""), DemonstrationRequest("q", "First, ")]


def answers(text):
    return lambda prompt, seed: text
