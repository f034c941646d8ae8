"""The embedded teacher: python launch/sft.py --config=configs/quickstart_teacher.py"""

from configs import sft


def get_config():
    config = sft.get_config()
    config.run_dir = "runs/quickstart_teacher"
    config.model = "teacher"
    config.judged_share = 0.8
    config.num_steps = 3500
    return config
