"""A method of your own: fine-tuning on the student's right samples, without a teacher.

python launch/train.py --config=quickstart \
    --config.method=examples/own_method.py:RIGHT_ONES
"""

from ovd_jax.rollout.solutions import accepted_groups
from ovd_jax.training.methods import (
    Method,
    by_imitation,
    unjudged,
    with_equal_advantages,
)


def right_ones(buffer):
    """Of a batch, what is trained on: where nothing judges, all is accepted."""
    return with_equal_advantages(accepted_groups(buffer.groups), (1.0,))


RIGHT_ONES = Method(
    by_imitation, select=right_ones, rules=unjudged, asks=lambda config: False
)
