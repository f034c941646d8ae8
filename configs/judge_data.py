"""Rows that teach the embedded teacher to judge what students write:

python launch/make_judge_data.py --config.students="('quickstart', 'runs/quickstart')"
"""

from configs import quickstart


def get_config():
    config = quickstart.get_config()
    config.unlock()
    config.students = ("quickstart",)  # whose samples are graded
    config.samples = 2
    config.problems = 1500  # of each student
    config.slips = 1500  # problems solved with made-up slips
    config.continuer_of = "quickstart"  # whose chance of ending right is a step's worth
    config.continuations = 32  # of each right prefix
    config.output = "runs/judge_data.jsonl"
    config.eval_problems = 0
    config.lock()
    return config
