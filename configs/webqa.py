"""The paper's search agent (A.6.2): Qwen2.5-3B learns to search from an environment
agent, a 7B model behind vLLM that plays the search engine and scores every turn:

    bash launch/serve_teacher.sh sunhaonlp/Simulation_LLM_google_7B-V2
    python launch/train.py --config=configs/webqa.py

Each part may be another model: `--config.search.url=` is the engine, `config.teacher`
scores, `config.continuer` rewrites rejected turns. The paper trains with thresholds 0
(no rejection), 5, 7 and 10: `--config.threshold=10`. Questions, HotpotQA's by default,
are any JSONL file or hub name (`pip install "ovd_jax[hub]"`): `--config.data=PATH`. It
is a run for accelerators.
"""

from configs import default


def get_config():
    config = default.get_config()
    config.run_dir = "runs/webqa"
    config.num_steps = 203
    config.task = "qa"
    config.data = "hotpotqa/hotpot_qa:distractor"
    config.prompt_template = "plain"  # a base model
    config.qa.prompt = "search"
    config.qa.reward = "f1"
    config.model = "Qwen/Qwen2.5-3B"
    config.compute_dtype = "bfloat16"
    config.problems_per_step = 64
    config.samples = 5
    config.top_p = 0.95
    config.max_prompt_tokens = 512
    config.max_new_tokens = 500  # of a turn
    config.turns.max_observations = 5
    config.turns.total_tokens = 4096
    config.turns.observation_tokens = 2048
    config.search.backend = "simulated"
    config.search.topk = 5
    config.search.url = config.teacher.url = "http://127.0.0.1:8000/v1"
    config.teacher.prompt = "turns"
    config.teacher.max_new_tokens = 500
    config.granularity = "step"
    config.replacement = "step"
    config.threshold = 7
    config.baseline = "union"
    config.minibatches = 2
    config.optimizer.learning_rate = 1e-6
    config.optimizer.warmup_steps = 193  # 95 % of the steps
    config.microbatch_tokens = 16384
    config.remat = "full"
    config.length_multiple = 256
    # What keeps GRPO on search from breaking down: see README.
    config.clip_high = 0.28
    config.turns.mask_invalid = True
    config.collapse.window = 20
    config.collapse.entropy = 0.02
    config.collapse.zero_spread = 0.98
    config.collapse.invalid_rate = 0.95
    config.collapse.truncated = 0.95
    config.export_dtype = "bfloat16"
    return config
