"""The mathematics sets of the paper's Table 4, GSM8K and MATH-500:

    python launch/evaluate.py --config=configs/eval_math.py --config.model=DIR_OR_NAME
    python launch/evaluate.py --config=configs/eval_math.py --config.model=runs/math \
        --config.data=FOLDER --config.eval_sets="('gsm8k', 'aime24@8')"

Sets come from the hub (`pip install "ovd_jax[hub]"`), or from the files NAME.jsonl of
the folder `config.data`.
`config.data=a.jsonl,b.jsonl` evaluates on those files. Greedy, and 8 samples at
temperature 0.6 of AIME's few problems. With `--config.test_threshold=7` a teacher that
is served, as for configs/math.py, checks each step.
"""

from configs import default

TABLE_4 = (
    "svamp", "asdiv", "mawps", "tabmwp", "minerva_math", "olympiadbench", "sat_math",
    "mmlu_stem", "gaokao2024_i", "aime24",
)  # fmt: skip


def get_config():
    config = default.get_config()
    config.run_dir = "runs/eval_math"
    config.task = "math"
    config.data = ""
    config.prompt_template = "chat"  # with a system line; plain: for other tokenizers
    config.max_new_tokens = 3072
    config.teacher.url = "http://127.0.0.1:8000/v1"  # asked with test_threshold alone
    config.teacher.prompt = "digits"
    config.teacher.max_new_tokens = 3072
    config.eval_sets = (*TABLE_4[:-1], "aime24@8", "gsm8k", "math500")
    config.averaged_sets = TABLE_4
    config.eval_problems = 0
    return config
