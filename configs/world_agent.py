"""The embedded environment agent: scores turns, writes them, and is a search engine. In
two rounds: what it was at step 1000 of the first is where the second begins. The one
that is shipped is of step 1000, made when judgements had no other turns beside theirs
and scores no weight of their own in the loss (commit
5eb6f44). The second round is open.

python launch/sft.py --config=configs/world_agent.py
python launch/export.py --config.model=runs/world_agent --config.output=runs/world_1000
python launch/sft.py --config=configs/world_agent.py --config.seed=1 \
    --config.model=runs/world_1000 --config.judged_share=0.6 \
    --config.world.simulated_share=0.4 --config.optimizer.learning_rate=6e-4 \
    --config.num_steps=900 --config.batch_size=20 --config.run_dir=runs/world_agent_2
"""

from configs import sft


def get_config():
    config = sft.get_config()
    config.run_dir = "runs/world_agent"
    config.model = "agent"
    config.task = "world"
    config.judged_share = 0.4
    config.world.simulated_share = 0.6
    config.max_tokens = 768
    config.num_steps = 2200
    return config
