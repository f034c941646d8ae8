"""DPO: the teacher's solution rather than the rejected one of the student's.

python launch/train.py --config=configs/dpo_pairs.py

On the quickstart's task; any other config takes `--config.method=dpo_pairs` as well.
"""

from configs import quickstart


def get_config():
    config = quickstart.get_config()
    config.run_dir = "runs/dpo_pairs"
    config.method = "dpo_pairs"
    config.samples = 2
    config.problems_per_step = 64
    return config
