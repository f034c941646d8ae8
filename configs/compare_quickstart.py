"""OVD at several thresholds against RLVR on the quickstart task:

python launch/compare.py --config=configs/compare_quickstart.py

Six trainings of 40 steps, each about a minute on 2 CPU cores.
"""

from configs import compare


def get_config():
    config = compare.get_config()
    config.run_dir = "runs/compare_quickstart"
    config.base = config.eval_base = "quickstart"
    config.overrides = ("num_steps=40", "problems_per_step=32", "samples=4")  # groups
    config.runs = (
        "before training: base=",
        "RLVR: threshold=0",
        "OVD, threshold 5: threshold=5",
        "OVD, threshold 7: threshold=7",
    )
    config.seeds = (0, 1)
    return config
