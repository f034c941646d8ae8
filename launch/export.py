"""A Hugging Face folder of a model, as `transformers` and vLLM load it.

    python launch/export.py --config.model=runs/math --config.output=math-1.5b
    python launch/export.py --config.model=student.gguf --config.output=student

`--config.model` is a run directory (its newest checkpoint, or else its export), a
Hugging Face folder, a GGUF file or a hub name. Tokenizer, chat template and generation
settings come along. The last line on stdout is a summary in JSON.
"""

from ovd_jax.cli import flags


def main(config):
    """Imports the program once its config is right."""
    from ovd_jax import export

    export.main(config)


def run():
    """The console command."""
    flags.run(main, doc=__doc__, default="export")


if __name__ == "__main__":
    run()
