"""The embedded student, stopped while it still errs. The learning rate does not fall,
so that training at a similar rate goes on from there without a loss:

python launch/sft.py --config=configs/quickstart_student.py
"""

from configs import sft


def get_config():
    config = sft.get_config()
    config.run_dir = "runs/quickstart_student"
    config.arithmetic.max_operations = 3
    config.arithmetic.max_value = 20
    config.num_steps = 1000
    config.optimizer.learning_rate = 5e-4
    config.optimizer.schedule = "constant"
    return config
