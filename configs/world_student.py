"""The embedded search student, which takes the first fact it finds for the answer. In
two rounds; the second begins where the first ends.

python launch/sft.py --config=configs/world_student.py
python launch/sft.py --config=configs/world_student.py --config.seed=1 \
    --config.model=runs/world_student/export --config.num_steps=700 \
    --config.optimizer.warmup_steps=50 --config.run_dir=runs/world_student_2

11 and 10 minutes on 2 CPU cores.
"""

from configs import sft


def get_config():
    config = sft.get_config()
    config.run_dir = "runs/world_student"
    config.task = "world"
    config.world.hasty_share = 0.9
    config.max_tokens = 512
    config.num_steps = 900
    return config
