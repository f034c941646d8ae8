"""OVD at several thresholds against RLVR on the quickstart task, and the grid's knobs:

    python launch/compare.py --config=configs/compare_quickstart.py

Six trainings of 40 steps, each about a minute on 2 CPU cores.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.run_dir = "runs/compare_quickstart"
    config.base = "configs/quickstart.py"  # what is trained
    config.overrides = ("num_steps=40",)  # knobs that all runs change
    config.runs = (  # label: knob=value ... ; each is a line of the table
        "RLVR: threshold=0",
        "OVD, threshold 5: threshold=5",
        "OVD, threshold 7: threshold=7",
    )
    config.seeds = (0, 1)
    config.zero_shot = True  # a first line: the model before training
    config.eval_base = "configs/quickstart.py"  # how each is evaluated
    config.eval_overrides = ()
    config.test_thresholds = (0,)  # testing thresholds; 0: the student alone
    config.timeout_s = 7 * 86400.0  # of one training or evaluation
    return config
