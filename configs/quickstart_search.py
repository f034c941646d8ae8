"""OVD of a search agent with the embedded models, in a made-up world, on a laptop:

python launch/train.py --config=configs/quickstart_search.py
"""

from configs import default


def get_config():
    config = default.get_config()
    config.run_dir = "runs/quickstart_search"
    config.num_steps = 60
    config.task = "qa"
    config.data = config.held_out_data = "world"
    config.prompt_template = "plain"
    config.qa.prompt = "world"
    config.model = "world"
    config.search.backend = "simulated"  # or bm25: `--config.search.backend=bm25`
    config.search.corpus = "world"
    config.search.model = "world"
    config.search.prompt = "world"
    config.search.topk = 2
    config.search.max_new_tokens = 48
    config.search.temperature = 0.5
    config.search.noise = (0.0, 0.25)
    config.turns.searches = 4
    config.turns.total_tokens = 320
    config.turns.observation_tokens = 96
    config.turns.correction = "That does not help."
    config.max_new_tokens = 48
    config.problems_per_step = 32
    config.samples = 4
    config.teacher.model = "world"
    config.teacher.prompt = "world"
    config.teacher.max_new_tokens = 48
    config.teacher.min_prompts = 16
    config.granularity = "step"
    config.replacement = "step"
    config.threshold = 5
    config.teacher.score_rule = "expected"
    config.baseline = "union"
    config.length_multiple = 32
    config.optimizer.learning_rate = 3e-4
    config.optimizer.schedule = "linear"
    config.optimizer.warmup_steps = 5
    config.optimizer.b2 = 0.98
    config.eval_every = 20
    config.eval_problems = 200
    config.eval_rows = 200
    return config
