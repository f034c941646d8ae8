"""OVD on arithmetic with the embedded models, on a laptop:

python launch/train.py --config=configs/quickstart.py
"""

from configs import default


def get_config():
    config = default.get_config()
    config.run_dir = "runs/quickstart"
    config.num_steps = 60
    config.granularity = "step"
    config.baseline = "union"
    config.teacher.min_prompts = 32
    config.optimizer.learning_rate = 3e-4
    config.eval_every = 20
    return config
