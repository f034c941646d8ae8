"""Make the training rows of a simulated search engine, from a corpus and recorded runs.

    python launch/make_simulator_data.py --config.corpus=CORPUS.jsonl \
        --config.trajectories='RUNS/*.jsonl' --config.output=simulator.jsonl
    python launch/sft.py --config=configs/simulator_sft.py --config.data=simulator.jsonl

The last line on stdout is a summary in JSON.
"""

from ovd_jax.cli import flags


def main(config):
    """Imports the program once its config is right."""
    from ovd_jax import make_simulator_data

    make_simulator_data.main(config)


def run():
    """The console command."""
    flags.run(main, doc=__doc__, default="simulator_data")


if __name__ == "__main__":
    run()
