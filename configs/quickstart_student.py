"""The embedded student, stopped while it still errs:

python launch/sft.py --config=configs/quickstart_student.py
"""

from configs import sft


def get_config():
    config = sft.get_config()
    config.run_dir = "runs/quickstart_student"
    config.num_steps = 650
    return config
