"""SmolLM2 taught by itself behind vLLM; see benchmarks/teacher.py."""

from configs import smollm2


def get_config():
    config = smollm2.get_config()
    config.run_dir = "runs/teacher_benchmark"
    config.num_steps = 4
    config.loggers = ()
    config.max_new_tokens = config.teacher.max_new_tokens = 64
    config.kl_coef = 0.0
    config.importance_cap = 2.0
    config.eval_problems = 1
    config.checkpoint_every = 0
    config.parts = ("orders", "overlap", "async", "throughput", "stopped")
    config.teacher.url = ""  # of a server that is there; empty: one is started
    config.publish = False  # to benchmarks/results, whatever the settings
    return config
