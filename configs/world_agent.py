"""The embedded environment agent: scores turns, writes them, and is a search engine. In
two rounds; the second begins where the first ends.

python launch/sft.py --config=configs/world_agent.py
python launch/sft.py --config=configs/world_agent.py --config.seed=1 \
    --config.model=runs/world_agent/export --config.judged_share=0.6 \
    --config.world.simulated_share=0.4 --config.optimizer.learning_rate=6e-4 \
    --config.num_steps=900 --config.batch_size=20 --config.run_dir=runs/world_agent_2

The second round is open: the agent that is shipped is step 1000 of 2200 of a first one
on the examples of commit 5eb6f44, in which a turn was judged alone and a score weighed
as much as a word.
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
    config.num_steps = 1000
    return config
