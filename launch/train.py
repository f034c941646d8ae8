"""Train a student by On-policy Verbal Distillation.

    python launch/train.py --config=configs/quickstart.py
    python launch/train.py --config=configs/quickstart.py --config.threshold=7 \
        --config.run_dir=runs/quickstart_7

Run the same command again to go on from the last checkpoint; another experiment needs a
run_dir of its own. The last line on stdout is a summary in JSON.
"""

from ovd_jax.cli import flags


def main(config):
    """Imports the program once its config is right."""
    from ovd_jax import train

    train.main(config)


def run():
    """The console command."""
    flags.run(main, doc=__doc__, default="quickstart")


if __name__ == "__main__":
    run()
