"""The paper's RLVR rows: `math` with every trajectory accepted (threshold 0):

python launch/train.py --config=configs/rlvr.py
"""

from configs import math


def get_config():
    config = math.get_config()
    config.run_dir = "runs/rlvr"
    config.threshold = 0
    return config
