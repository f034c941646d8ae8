"""A teacher measured as a judge of steps:

    python launch/evaluate.py --config=configs/teacher_audit.py

The embedded teacher on its own task: on made-up slips, and on what the student
`--config.model=STUDENT` samples, with the precision and recall of acceptance at each
threshold; under a minute. Any other on rows of ProcessBench,
or of that form (`question`, `steps`, `first_error`), several files with commas:

    bash launch/serve_teacher.sh MODEL
    python launch/evaluate.py --config=configs/teacher_audit.py \
        --config.teacher.url=http://127.0.0.1:8000/v1 --config.teacher.prompt=digits \
        --config.data=processbench_gsm8k.jsonl,processbench_math.jsonl

It prints ProcessBench's F1 of the first wrong step at each threshold and recommends the
best; run_dir gets audit.json, audit.png (calibration) and each step's score. AUC 0.5 is
a judge of no use. Set teacher.score_rule to what the training will use.
"""

from configs import quickstart


def get_config():
    config = quickstart.get_config()
    config.run_dir = "runs/teacher_audit"
    config.evaluate = "teacher"
    config.data = ""  # the arithmetic task's held-out problems, some solved with slips
    config.eval_problems = 400
    config.teacher.score_rule = "expected"
    config.samples = 2
    return config
