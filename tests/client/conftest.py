"""Shared by the tests of clients."""

import pytest
from connected import teachers


@pytest.fixture
def connect():
    """`connect(server, policy, ...)`: a teacher, closed when the test ends."""
    with teachers(stop=("</answer>",)) as make:

        def connect(server, policy="wait", **changes):
            return make(server, on_failure=policy, **changes)

        yield connect
