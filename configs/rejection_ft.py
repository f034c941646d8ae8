"""Fine-tuning on the student's own right samples (RAFT, ReST).

python launch/train.py --config=configs/rejection_ft.py

On the quickstart's task; any other config takes `--config.method=rejection_ft` as well.
With a threshold over 0 the teacher must accept them, too.
"""

from configs import quickstart


def get_config():
    config = quickstart.get_config()
    config.run_dir = "runs/rejection_ft"
    config.method = "rejection_ft"
    config.samples = 4
    config.problems_per_step = 32
    config.threshold = 0
    return config
