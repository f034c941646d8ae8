"""Token-level distillation along the teacher's solutions, by the forward KL.

python launch/train.py --config=configs/token_kd.py

On the quickstart's task; any other config takes `--config.method=token_kd` as well. The
teacher must have the student's tokenizer; it is in this process, or, with
`--config.distill.vocabulary=top_k`, served by vLLM.
"""

from configs import quickstart


def get_config():
    config = quickstart.get_config()
    config.run_dir = "runs/token_kd"
    config.method = "token_kd"
    return config
