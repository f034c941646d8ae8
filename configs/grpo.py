"""GRPO on outcome rewards alone, without a teacher, and its relatives.

python launch/train.py --config=configs/grpo.py
python launch/train.py --config=configs/grpo.py:dapo

On the quickstart's task; any other config takes `--config.method=grpo` as well. After
the colon: dapo, dr_grpo, gspo, cispo or rloo.
"""

from configs import quickstart
from ovd_jax.errors import UserError

VARIANTS = {
    "": {},
    # arXiv:2503.14476: clip-higher, all tokens alike, groups without spread drawn anew
    "dapo": {
        "clip_high": 0.28, "aggregation": "dapo", "refills": 3, "kl_coef": 0.0
    },
    # arXiv:2503.20783: no standard deviation, no length in the loss
    "dr_grpo": {"aggregation": "dr_grpo", "scale_by_std": False, "kl_coef": 0.0},
    # arXiv:2507.18071: a ratio a trajectory; its drift is far smaller than a token's
    "gspo": {
        "surrogate": "gspo", "clip_low": 3e-4, "clip_high": 4e-4, "kl_coef": 0.0
    },
    # arXiv:2506.13585: clipped importance weights, no lower bound
    "cispo": {
        "surrogate": "cispo", "clip_low": 1.0, "clip_high": 0.28,
        "aggregation": "dapo", "kl_coef": 0.0,
    },
    # arXiv:2402.14740: the others of the group are the baseline; KL in the loss
    "rloo": {"baseline": "leave_one_out", "scale_by_std": False},
}  # fmt: skip


def get_config(variant: str = ""):
    if variant not in VARIANTS:
        raise UserError(f"{variant!r} is not one of {', '.join(VARIANTS)[2:]}.")
    config = quickstart.get_config()
    config.run_dir = f"runs/{variant or 'grpo'}"
    config.method = "grpo"
    config.samples = 8  # few problems, for only groups that differ teach
    config.problems_per_step = 16
    config.baseline = "after"
    config.optimizer.learning_rate = 3e-5  # outcome rewards are noisy
    config.update(VARIANTS[variant])
    return config
