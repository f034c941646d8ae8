"""The paper's Table 4 and Figures 5 and 6: RLVR and OVD's thresholds on mathematics,
trained on one example (`compare_math.py:two` trains on two):

    bash launch/serve_teacher.sh Qwen/Qwen2.5-32B-Instruct 8000 --tensor-parallel-size 2
    python launch/compare.py --config=configs/compare_math.py

It is a comparison for accelerators; see configs/math.py for the teacher.
"""

from configs import compare
from ovd_jax.errors import UserError


def get_config(examples="one"):
    problems = {"one": "math_one_example", "two": "math_two_examples"}
    if examples not in problems:
        raise UserError(f"{examples!r} is not one of {', '.join(problems)}.")
    config = compare.get_config()
    config.run_dir = f"runs/compare_math_{examples}"
    config.base = problems[examples]
    config.eval_base = "eval_math"
    config.runs = (
        "before training: base=",
        "RLVR: method=grpo",
        *(f"OVD, threshold {at}: threshold={at}" for at in (5, 7, 10)),
    )
    config.eval_overrides = ("compute_dtype=bfloat16", "prompt_template=qwen_boxed")
    config.tests = (
        "student alone: test_threshold=0",
        "tested at 7: test_threshold=7",
        "tested at 7\N{DAGGER}: test_threshold=7 test_score_rule=sample",
    )
    return config
