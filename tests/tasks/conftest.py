import pytest

from ovd_jax.tasks.grading.grader import Grader


@pytest.fixture(scope="module")
def grader():
    """Patient: these answers are judged, however busy the machine is."""
    with Grader(timeout_s=60.0) as grader:
        yield grader
