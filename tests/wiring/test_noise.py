"""A simulated engine grows worse with the steps of its run, all of them."""

import pytest
from teacher_server import TeacherServer

from ovd_jax.cli import flags
from ovd_jax.wiring.search import make_engine


@pytest.mark.parametrize(
    ("steps", "at", "share"),
    [
        (6, 0, 0.1), (6, 3, 0.1 + 0.6 / 3), (6, 6, 0.7), (6, 9, 0.7),
        (100, 50, 0.1 + 0.6 / 3), (100, 100, 0.7), (1, 0, 0.1), (1, 1, 0.7),
    ],
)  # fmt: skip
def test_the_noise_is_of_the_step_and_of_how_many_there_are(steps, at, share):
    """Halfway it has grown by a third: (4 ** 0.5 - 1) / 3."""
    config = flags.load_file("configs/default.py")
    with TeacherServer() as server, config.unlocked():
        config.update(num_steps=steps)
        config.search.update(
            backend="simulated", url=server.url, prompt="plain", noise=(0.1, 0.7)
        )
        engine = make_engine(config)
        engine.begin(at)
        engine.close()
    assert engine.identity["noise"] == pytest.approx(share)
