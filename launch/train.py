"""Train a student by On-policy Verbal Distillation.

    python launch/train.py --config=configs/quickstart.py
    python launch/train.py --config=configs/quickstart.py --config.threshold=0

Run the same command again to go on from the last checkpoint. The last line on stdout is
a summary in JSON.
"""

from ovd_jax import flags, train

if __name__ == "__main__":
    flags.run(train.main, doc=__doc__, default="configs/quickstart.py")
