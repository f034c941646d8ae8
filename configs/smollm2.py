"""SmolLM2-135M-Instruct, real weights, on GSM8K, its own teacher in the same process:

    python launch/fetch_smollm2.py
    python launch/train.py --config=configs/smollm2.py --config.num_steps=3

or a teacher that vLLM serves (its weights may be any):

    bash launch/serve_teacher.sh ~/.cache/ovd_jax/smollm2-135m-instruct
    python launch/train.py --config=configs/smollm2.py --config.num_steps=3 \
        --config.teacher.url=http://127.0.0.1:8000/v1

The rows are 64 of GSM8K's that come with the package; `--config.data=openai/gsm8k:main
--config.held_out_data=` takes all of them from the hub (`pip install "ovd_jax[hub]"`),
`--config.data=PATH` a JSONL file. On 2 CPU cores a step takes a minute or two.
"""

from configs import default


def get_config():
    config = default.get_config()
    config.run_dir = "runs/smollm2"
    config.num_steps = 50
    config.task = "math"
    config.data = "gsm8k_train_sample"
    config.held_out_data = "gsm8k_test_sample"
    config.prompt_template = "chat"
    config.model = config.teacher.model = "smollm2"
    config.problems_per_step = 2
    config.samples = 4
    config.max_prompt_tokens = 256
    config.max_new_tokens = 128
    config.teacher.prompt = "digits"
    config.teacher.max_new_tokens = 128
    config.teacher.rows = 8
    config.threshold = 5
    config.granularity = "step"
    config.credit = "hybrid"  # few of its answers are right; steps still differ
    config.demonstration_tries = 1
    config.baseline = "union"
    config.optimizer.learning_rate = 5e-6
    config.microbatch_tokens = 2048
    config.remat = "matmuls"
    config.chunk = 256
    config.length_multiple = 128
    config.eval_problems = 8
    config.eval_rows = 8
    config.eval_every = 0
    config.checkpoint_every = 25
    return config
