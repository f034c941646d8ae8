"""A model learns to be a search engine from launch/make_simulator_data.py's rows:

    python launch/sft.py --config=configs/simulator_sft.py --config.model=DIR_OR_NAME \
        --config.data=runs/simulator.jsonl
    bash launch/serve_teacher.sh runs/simulator_sft/export
    python launch/train.py --config=configs/webqa.py --config.search.prompt=plain

ZeroSearch's settings. All weights are trained; `--config.lora.rank=16` trains adapters.
"""

from configs import sft


def get_config():
    config = sft.get_config()
    config.run_dir = "runs/simulator_sft"
    config.model = "Qwen/Qwen2.5-7B"
    config.data = "runs/simulator.jsonl"
    config.num_steps = 1000
    config.batch_size = 2
    config.max_tokens = 1024
    config.packed = True
    config.optimizer.learning_rate = 1e-6
    config.optimizer.warmup_steps = 30
    config.optimizer.b2 = 0.999
    config.optimizer.weight_decay = 0.0
    config.chunk = 1024
    config.remat = "full"
    config.compute_dtype = "bfloat16"
    return config
