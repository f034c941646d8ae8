"""One problem, repeated 128 times a batch (section 4.4, Table 4):

    bash launch/serve_teacher.sh Qwen/Qwen2.5-32B-Instruct 8000 --tensor-parallel-size 2
    python launch/train.py --config=configs/math_one_example.py

Student, teacher and hardware are those of configs/math.py. The problem is the first of
the paper's section A.2 (row 1 of One-Shot-RLVR's subset of DeepScaleR, Apache-2.0);
`--config.data=PATH` takes another.
"""

from pathlib import Path

from configs import math


def get_config():
    config = math.get_config()
    config.run_dir = "runs/math_one_example"
    config.data = str(Path(__file__).parent / "problems/one_example.jsonl")
    return config
