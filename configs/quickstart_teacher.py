"""The embedded teacher, in two rounds: what it is after the first is where the second
begins.

python launch/sft.py --config=configs/quickstart_teacher.py
python launch/sft.py --config=configs/quickstart_teacher.py --config.seed=1 \
    --config.model=runs/quickstart_teacher/export --config.num_steps=1600 \
    --config.optimizer.learning_rate=8e-4 --config.run_dir=runs/quickstart_teacher_2
"""

from configs import sft


def get_config():
    config = sft.get_config()
    config.run_dir = "runs/quickstart_teacher"
    config.model = "teacher"
    config.judged_share = 0.8
    config.num_steps = 3500
    return config
