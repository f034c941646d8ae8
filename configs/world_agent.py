"""The embedded environment agent: scores turns, writes them, and is a search engine. In
three rounds; each begins where the one before it ends.

python launch/sft.py --config=configs/world_agent.py
python launch/sft.py --config=configs/world_agent.py --config.seed=1 \
    --config.model=runs/world_agent/export --config.judged_share=0.6 \
    --config.world.simulated_share=0.4 --config.optimizer.learning_rate=6e-4 \
    --config.num_steps=1200 --config.batch_size=20 --config.run_dir=runs/world_agent_2
python launch/sft.py --config=configs/world_agent.py --config.seed=2 \
    --config.model=runs/world_agent_2/export --config.judged_share=0.7 \
    --config.world.simulated_share=0.3 --config.optimizer.learning_rate=6e-4 \
    --config.num_steps=3000 --config.batch_size=20 --config.run_dir=runs/world_agent_3

Rounds two and three of the agent that is shipped took 217 and 232 seconds beside other
work on an H100. Its first round was step 1000 of 2200 on the examples of commit
5eb6f44, in which a turn was judged alone and a score weighed as much as a word.
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
