"""The embedded environment agent: scores turns, writes them, and is a search engine.

python launch/sft.py --config=configs/world_agent.py
"""

from configs import sft


def get_config():
    config = sft.get_config()
    config.run_dir = "runs/world_agent"
    config.model = "agent"
    config.task = "world"
    config.judged_share = 0.4
    config.world.simulated_share = 0.6
    config.max_tokens = 512
    config.num_steps = 2200
    return config
