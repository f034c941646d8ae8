"""Two problems, 64 copies of each a batch (section 4.4, Table 4):

    bash launch/serve_teacher.sh Qwen/Qwen2.5-32B-Instruct 8000 --tensor-parallel-size 2
    python launch/train.py --config=configs/math_two_examples.py

Student, teacher and hardware are those of configs/math.py.
"""

from pathlib import Path

from configs import math


def get_config():
    config = math.get_config()
    config.run_dir = "runs/math_two_examples"
    config.data = str(Path(__file__).parent / "problems/two_examples.jsonl")
    return config
