"""OVD on arithmetic with the embedded models, on a laptop:

python launch/train.py --config=configs/quickstart.py
"""

from configs import default


def get_config():
    config = default.get_config()
    config.run_dir = "runs/quickstart"
    config.num_steps = 130
    config.problems_per_step = 128  # many problems: the teacher shows each solution
    config.samples = 1  # a group is the student's attempt and what replaces it
    config.baseline = "union"
    config.min_rows = 32
    config.granularity = "step"
    config.threshold = 5  # right steps score 6 to 9, see ovd_jax/toy/graded.py
    config.teacher.score_rule = "expected"
    config.minibatches = 4
    config.epochs = 2
    config.length_multiple = 32
    config.optimizer.learning_rate = 3e-4
    config.optimizer.schedule = "linear"
    config.optimizer.warmup_steps = 1.25  # ten optimizer steps
    config.optimizer.b2 = 0.98
    config.eval_every = 15
    config.eval_problems = 400
    config.eval_rows = 200
    return config
