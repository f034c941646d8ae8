"""A model as a judge of searches before and after SFT; see
benchmarks/discrimination.py."""

from configs import default


def get_config():
    config = default.get_config()
    config.models = ("smollm2", "runs/simulator_sft")  # run directories, folders, names
    config.trajectories = ""  # recorded runs: a path, or a pattern such as RUNS/*.jsonl
    config.held_out_share = 0.2  # as it was for launch/make_simulator_data.py
    config.turns_scored = 150  # good ones; and as many of each corruption
    config.teacher.prompt = "turns"
    config.teacher.score_rule = "expected"
    config.teacher.rows = 8
    config.publish = False  # to benchmarks/results, whatever the settings
    return config
