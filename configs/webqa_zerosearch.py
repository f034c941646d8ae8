"""ZeroSearch (arXiv:2505.04588): GRPO on F1 with a simulated engine whose documents
grow worse as training goes on; nothing scores a turn:

    bash launch/serve_teacher.sh sunhaonlp/Simulation_LLM_google_7B-V2
    python launch/train.py --config=configs/webqa_zerosearch.py
"""

from configs import webqa


def get_config():
    config = webqa.get_config()
    config.run_dir = "runs/webqa_zerosearch"
    config.method = "grpo"
    config.threshold = 0
    config.granularity = config.replacement = "trajectory"
    config.baseline = "after"
    config.minibatches = 1
    config.clip_high = 0.2
    config.turns.mask_invalid = False
    return config
