"""The embedded search student, which takes the first fact it finds for the answer:

python launch/sft.py --config=configs/world_student.py
"""

from configs import sft


def get_config():
    config = sft.get_config()
    config.run_dir = "runs/world_student"
    config.task = "world"
    config.world.hasty_share = 0.9
    config.max_tokens = 512
    config.num_steps = 400
    return config
