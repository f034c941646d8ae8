"""Teachers behind test servers, closed when a test ends."""

import contextlib

from ovd_jax.client.accounting import Accounting
from ovd_jax.client.transport import Transport
from ovd_jax.teacher.openai_api import OpenAITeacher
from ovd_jax.teacher.prompts import PROMPTS

TRANSPORT = dict(name="", key=None, timeout_s=2.0, retries=1, max_concurrency=8)
TEACHER = dict(
    prompt="digits", score_rule="sample", score_temperature=0.7, temperature=0.7,
    max_new_tokens=64, on_failure="wait",
)  # fmt: skip


@contextlib.contextmanager
def teachers(**defaults):
    """Yields `connect(*servers, **changes)`, which makes a teacher of `defaults`."""
    opened = []

    def connect(*servers, **changes) -> OpenAITeacher:
        options = TRANSPORT | TEACHER | defaults | changes
        transport = Transport(
            [server.url for server in servers],
            wait=options["on_failure"] == "wait",
            accounting=Accounting(),
            **{name: options.pop(name) for name in TRANSPORT},
        )
        opened.append(transport)
        prompt = PROMPTS[options.pop("prompt")]
        return OpenAITeacher(transport, prompt=prompt, **options)

    yield connect
    for transport in opened:
        transport.close()
