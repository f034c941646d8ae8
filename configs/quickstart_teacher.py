"""The embedded teacher. First it learns to solve and to judge made-up slips; then, in
rounds, to judge what students write, on a scale with content (ovd_jax/toy/graded.py),
each round from where the last one ended:

python launch/sft.py --config=configs/quickstart_teacher.py
python launch/make_judge_data.py --config.output=runs/judge_data_1.jsonl --config.seed=1
python launch/sft.py --config=configs/quickstart_teacher.py --config.seed=1 \
    --config.model=runs/quickstart_teacher/export \
    --config.judged_data=runs/judge_data_1.jsonl --config.num_steps=2500 \
    --config.optimizer.learning_rate=8e-4 --config.run_dir=runs/quickstart_teacher_1

The later rounds sample trained students, too:

python launch/train.py --config=configs/quickstart.py \
    --config.teacher.model=runs/quickstart_teacher_1/export
python launch/make_judge_data.py --config.output=runs/judge_data_2.jsonl \
    --config.seed=2 --config.students="('quickstart', 'runs/quickstart')"
"""

from configs import sft


def get_config():
    config = sft.get_config()
    config.run_dir = "runs/quickstart_teacher"
    config.model = "teacher"
    config.judged_share = 0.8
    config.num_steps = 3500
    return config
