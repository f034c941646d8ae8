"""A reward of your own: right answers are worth 1, less a tenth for each line over one.

python launch/train.py --config=quickstart --config.method=grpo \
    --config.problems_per_step=32 --config.samples=4 \
    --config.reward=examples/own_reward.py:brief
"""


def brief(problems, texts):
    """One reward in [0, 1] for each text, a solution of the problem beside it."""
    rewards = []
    for problem, text in zip(problems, texts, strict=True):
        right = text.strip().endswith(f"#### {problem.answer}")
        rewards.append(max(0.0, 1.0 - 0.1 * text.strip().count("\n")) if right else 0.0)
    return rewards
