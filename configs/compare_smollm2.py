"""OVD, RLVR and SeqKD from SmolLM2-135M-Instruct, real weights, with a teacher that
vLLM serves; after the colon the JSONL file of the problems:

    python launch/fetch_smollm2.py
    bash launch/serve_teacher.sh ~/.cache/ovd_jax/smollm2-135m-instruct
    python launch/compare.py --config=configs/compare_smollm2.py:problems.jsonl

Rows whose `split` is "train" are trained on, those with "eval" test it. Without a file
they are the rows of GSM8K that come with the package. On 2 CPU cores, which vLLM uses
too, three trainings of 30 steps take about an hour.
"""

from configs import compare

URL = "http://127.0.0.1:8000/v1"


def get_config(data=""):
    problems = (f"data={data}", f"held_out_data={data}") if data else ()
    config = compare.get_config()
    config.run_dir = "runs/compare_smollm2"
    config.base = config.eval_base = "smollm2"
    config.overrides = (
        "num_steps=30", "granularity=trajectory", "credit=trajectory",
        "max_new_tokens=96", "teacher.max_new_tokens=96", "checkpoint_every=10",
        "optimizer.learning_rate=1e-5", f"teacher.url={URL}", *problems,
    )  # fmt: skip
    config.runs = (
        "before training: base=",
        "OVD: method=ovd",
        "RLVR: method=grpo",
        "SeqKD: method=seq_kd",
    )
    config.eval_overrides = (
        "max_new_tokens=160", "eval_problems=100", "eval_rows=50", *problems
    )  # fmt: skip
    return config
