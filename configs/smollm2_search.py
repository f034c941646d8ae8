"""SmolLM2-135M-Instruct, real weights, as a search agent: questions and passages of
your own, and a teacher that vLLM serves:

    python launch/fetch_smollm2.py
    bash launch/serve_teacher.sh ~/.cache/ovd_jax/smollm2-135m-instruct
    python launch/train.py --config=configs/smollm2_search.py \
        --config.data=questions.jsonl --config.search.corpus=passages.jsonl \
        --config.teacher.url=http://127.0.0.1:8000/v1

Rows are as in the README. Do not expect answers of a model of this size. A step takes a
minute or two on 2 CPU cores that vLLM uses too.
"""

from configs import smollm2


def get_config():
    config = smollm2.get_config()
    config.run_dir = "runs/smollm2_search"
    config.num_steps = 3
    config.task = "qa"
    config.prompt_template = "plain"
    config.qa.prompt = "search_example"
    config.temperature = 0.5
    config.max_prompt_tokens = 512
    config.max_new_tokens = 64  # of a turn
    config.prompt_multiple = 256
    config.turns.max_observations = 2
    config.turns.total_tokens = 512
    config.turns.observation_tokens = 160
    config.search.backend = "bm25"
    config.teacher.prompt = "turns"
    config.teacher.max_new_tokens = 64
    config.replacement = "step"
    config.max_replaced_steps = 2
    config.eval_problems = 4
    return config
