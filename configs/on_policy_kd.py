"""Token-level distillation along the student's own samples (GKD).

python launch/train.py --config=configs/on_policy_kd.py

On the quickstart's task; any other config takes `--config.method=on_policy_kd` as well.
`--config.distill.divergence` is forward_kl, reverse_kl, jsd or policy_gradient, the
reverse KL with a reward a token in the place of a gradient through the vocabulary.
"""

from configs import quickstart


def get_config():
    config = quickstart.get_config()
    config.run_dir = "runs/on_policy_kd"
    config.method = "on_policy_kd"
    config.distill.divergence = "reverse_kl"
    return config
