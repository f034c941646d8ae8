"""Make the rows that teach the embedded teacher to judge what students write.

    python launch/make_judge_data.py \\
        --config.students="('quickstart', 'runs/quickstart')"
    python launch/sft.py --config=configs/quickstart_teacher.py \\
        --config.model=TEACHER --config.judged_data=runs/judge_data.jsonl \\
        --config.run_dir=runs/quickstart_judge

The last line on stdout is a summary in JSON.
"""

from ovd_jax.cli import flags


def main(config):
    """Imports the program once its config is right."""
    from ovd_jax import make_judge_data

    make_judge_data.main(config)


def run():
    """The console command."""
    flags.run(main, doc=__doc__, default="judge_data")


if __name__ == "__main__":
    run()
