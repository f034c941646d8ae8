"""Rows that teach the embedded environment agent to judge what students write:

python launch/make_judge_data.py --config=configs/world_judge_data.py \
    --config.students="('world', 'runs/quickstart_search')"
"""

from configs import quickstart_search


def get_config():
    config = quickstart_search.get_config()
    config.unlock()
    config.students = ("world",)  # whose conversations are graded
    config.problems = 1000  # of each student
    config.slips, config.continuations = 0, 0  # arithmetic's alone
    config.continuer_of = ""
    config.output = "runs/world_judge_data.jsonl"
    config.eval_problems = 0
    config.lock()
    return config
