"""Search-R1 (arXiv:2503.09516): GRPO on strict EM with a real retriever:

python launch/serve_search.py --config.corpus=wiki.jsonl
python launch/train.py --config=configs/webqa_search_r1.py
"""

from configs import webqa_zerosearch


def get_config():
    config = webqa_zerosearch.get_config()
    config.run_dir = "runs/webqa_search_r1"
    config.num_steps = 1005
    config.qa.reward = "em"
    config.problems_per_step = 512
    config.top_p = 1.0
    config.turns.max_observations = 2  # 4 when it is evaluated
    config.search.backend = "http"
    config.search.topk = 3
    config.search.url = "http://127.0.0.1:8001/retrieve"
    config.minibatches = 2
    config.optimizer.warmup_steps = 286  # 28.5 % of the steps
    return config
