"""OVD of a search agent with the embedded models, in a made-up world, on a laptop:

python launch/train.py --config=configs/quickstart_search.py
"""

from configs import default


def get_config():
    config = default.get_config()
    config.run_dir = "runs/quickstart_search"
    config.num_steps = 20
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
    config.turns.max_observations = 3
    config.turns.total_tokens = 192
    config.turns.observation_tokens = 56
    config.turns.correction = "That does not help."
    config.max_new_tokens = 40
    config.problems_per_step = 16
    config.samples = 4
    config.teacher.model = "world"
    config.teacher.prompt = "world"
    config.teacher.max_new_tokens = 40
    config.teacher.rows = 16
    config.min_rows = 32  # three models that sample compile many programs
    config.prompt_multiple = 64
    config.granularity = "step"
    config.replacement = "step"
    config.max_replaced_steps = 2
    config.threshold = 5
    config.teacher.score_rule = "expected"
    config.baseline = "union"
    config.length_multiple = 64
    config.kl_coef = 0.0
    config.optimizer.learning_rate = 3e-4
    config.optimizer.schedule = "linear"
    config.optimizer.warmup_steps = 4
    config.optimizer.b2 = 0.98
    config.eval_every = 5
    config.eval_problems = 200
    config.eval_rows = 64
    return config
