"""The paper's maths setting (A.6.2): Qwen2.5-Math-1.5B under a teacher of 32B.

    bash launch/serve_teacher.sh Qwen/Qwen2.5-32B-Instruct 8000 --tensor-parallel-size 2
    python launch/train.py --config=configs/math.py

128 prompts a step with 8 samples each, 1024 + 3072 tokens, constant learning rate 1e-6.
The student is for one accelerator of 80 GB or more, or several. The teacher needs some
of its own, here two of 80 GB: its weights alone take 65 GB in bfloat16. Any model
will do, on any machine (`--config.teacher.url=`), as long as its first token is the
answer: the paper's own teacher, QwQ-32B, thinks first. Problems come from
the hub: `pip install "ovd_jax[hub]"`.
"""

from configs import default


def get_config():
    config = default.get_config()
    config.run_dir = "runs/math"
    config.num_steps = 800
    config.task = "math"
    config.data = "agentica-org/DeepScaleR-Preview-Dataset"
    config.held_out_data = "HuggingFaceH4/MATH-500"
    config.prompt_template = "qwen_boxed"
    config.model = "Qwen/Qwen2.5-Math-1.5B"
    config.compute_dtype = "bfloat16"
    config.problems_per_step = 128
    config.samples = 8
    config.temperature = 0.6
    config.max_prompt_tokens = 1024
    config.max_new_tokens = 3072
    config.teacher.url = "http://127.0.0.1:8000/v1"
    config.teacher.prompt = "digits"
    config.teacher.max_new_tokens = 3072
    config.granularity = "step"
    config.threshold = 7
    config.clip_low = config.clip_high = 0.2
    config.kl_coef = 0.001
    config.entropy_coef = 0.001
    config.optimizer.learning_rate = 1e-6
    config.microbatch_tokens = 32768
    config.remat = "full"
    config.length_multiple = 512
    config.eval_problems = 500
    config.eval_every = 50
    config.checkpoint_every = 20
    return config
