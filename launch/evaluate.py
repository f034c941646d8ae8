"""Accuracy, avg@k and pass@k of a model on a task's held-out problems.

    python launch/evaluate.py --config.model=runs/quickstart
    python launch/evaluate.py --config.eval_samples=8 --config.eval_temperature=1.0

`--config.model` is `quickstart`, a run directory, a Hugging Face folder or a hub name.
The last line on stdout is a summary in JSON.
"""

from ovd_jax import evaluate, flags

if __name__ == "__main__":
    flags.run(evaluate.main, doc=__doc__, default="configs/quickstart.py")
