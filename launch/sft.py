"""Fine-tune a model on examples: the embedded ones, or your own JSONL rows.

    python launch/sft.py --config=configs/quickstart_student.py
    python launch/sft.py --config=configs/sft.py --config.model=DIR --config.data=ROWS

The last line on stdout is a summary in JSON.
"""

from ovd_jax.cli import flags


def main(config):
    """Imports the program once its config is right."""
    from ovd_jax import sft

    sft.main(config)


def run():
    """The console command."""
    flags.run(main, doc=__doc__, default="sft")


if __name__ == "__main__":
    run()
