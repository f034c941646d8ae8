"""R1 on questions: GRPO on strict EM, by what the model knows, without a search engine:

python launch/train.py --config=configs/webqa_r1.py
"""

from configs import webqa_search_r1


def get_config():
    config = webqa_search_r1.get_config()
    config.run_dir = "runs/webqa_r1"
    config.qa.prompt = "cot"
    config.turns.max_observations = 0
    config.search.backend = "none"
    config.search.url = ""
    return config
