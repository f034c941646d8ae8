"""The embedded student, stopped while it still errs:

python launch/sft.py --config=configs/quickstart_student.py
"""

from configs import sft


def get_config():
    config = sft.get_config()
    config.run_dir = "runs/quickstart_student"
    config.arithmetic.max_operations = 3
    config.arithmetic.max_value = 20
    config.num_steps = 450
    return config
