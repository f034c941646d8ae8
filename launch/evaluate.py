"""Accuracy, avg@k and pass@k of a model on held-out problems or on named sets.

    python launch/evaluate.py --config.model=runs/quickstart
    python launch/evaluate.py --config.model=runs/quickstart \
        --config.eval_samples=8 --config.eval_temperature=1.0
    python launch/evaluate.py --config=configs/eval_math.py --config.model=DIR_OR_NAME
    python launch/evaluate.py --config=configs/eval_math.py --config.model=DIR_OR_NAME \
        --config.data=FOLDER --config.eval_sets="('gsm8k', 'aime24@8')"

`--config.model` is `quickstart`, a run directory, a Hugging Face folder or a hub name;
with `--config.engine=URL` an OpenAI-compatible server samples from it. With
`--config.test_threshold=5` the teacher replaces steps that it scores lower. Attempts
are kept: a second run makes none. Written are results.json and items.jsonl, every
attempt with why it is right or wrong; the last line on stdout is a summary in JSON.
"""

from ovd_jax.cli import flags


def main(config):
    """Imports the program once its config is right."""
    from ovd_jax import evaluate

    evaluate.main(config)


def run():
    """The console command."""
    flags.run(main, doc=__doc__, default="quickstart")


if __name__ == "__main__":
    run()
