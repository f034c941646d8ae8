"""A method of your own: fine-tuning on the student's right samples, without a teacher.

python launch/train.py --config=quickstart \
    --config.method=examples/own_method.py:RIGHT_ONES
"""

from ovd_jax.rollout.solutions import accepted_groups
from ovd_jax.training.methods import Method, never, unjudged, with_equal_advantages
from ovd_jax.training.objectives import by_imitation


def right_ones(buffer):
    """The correct samples of a batch: without a judge all are accepted."""
    return with_equal_advantages(accepted_groups(buffer.groups), (1.0,))


RIGHT_ONES = Method(
    by_imitation,
    training_groups=right_ones,
    rules=unjudged,
    needs_text_teacher=never,
)
