"""Sequence-level distillation: fine-tuning on the teacher's solutions.

python launch/train.py --config=configs/seq_kd.py

On the quickstart's task; any other config takes `--config.method=seq_kd` as well. With
`--config.distill.solutions=data` the solutions are those of the data.
"""

from configs import quickstart


def get_config():
    config = quickstart.get_config()
    config.run_dir = "runs/seq_kd"
    config.method = "seq_kd"
    return config
