"""The paper's RLVR rows: `math` with outcome rewards alone, and no teacher:

    python launch/train.py --config=configs/rlvr.py

No server is asked; the student needs what it needs in configs/math.py.
"""

from configs import math


def get_config():
    config = math.get_config()
    config.run_dir = "runs/rlvr"
    config.method = "grpo"
    return config
