"""Compare runs: train and evaluate each with several seeds; a table, plots and JSON.

    python launch/compare.py --config=configs/compare_quickstart.py
    python launch/compare.py --config=configs/compare_quickstart.py \
        --config.runs="('RLVR: threshold=0', 'OVD 3: threshold=3')" \
        --config.seeds="(0, 1)" \
        --config.tests="('alone: test_threshold=0', 'checked at 5: test_threshold=5')"

A run is `label: knob=value knob=value`, changes of the config `base` or, if `base=FILE`
is among them, of that one; a test is the same for `eval_base`. All knobs are looked at
before anything is trained. The same command goes on where it was stopped. The last line
on stdout is a summary in JSON.
"""

from ovd_jax.cli import flags


def main(config):
    """Imports the program once its config is right."""
    from ovd_jax import compare

    compare.main(config)


def run():
    """The console command."""
    flags.run(main, doc=__doc__, default="compare_quickstart")


if __name__ == "__main__":
    run()
