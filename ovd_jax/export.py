"""A run, a folder or a GGUF file as a Hugging Face folder of its own."""

import tempfile
import time
from pathlib import Path

import jax

from ovd_jax import build, flags
from ovd_jax.learning.checkpoint import restore_model
from ovd_jax.models import embedded, gguf, hf
from ovd_jax.models.folders import check_replaceable
from ovd_jax.models.shards import check_dtype
from ovd_jax.models.transformer import Transformer


def main(config):
    """Writes `config.model` to the folder `config.output`."""
    started = time.time()
    check(config)
    jax.config.update("jax_platforms", "cpu")  # nothing here needs an accelerator
    with tempfile.TemporaryDirectory() as scratch:
        model, tokenizer, source = open_model(config.model, Path(scratch))
        hf.save(
            model,
            Path(config.output),
            tokenizer,
            config.dtype,
            source=source,
            max_shard_bytes=config.max_shard_bytes,
        )
    weights = sorted(Path(config.output).glob("*.safetensors"))
    flags.summary(
        model=config.model,
        output=config.output,
        dtype=config.dtype,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(model)),
        files=len(weights),
        bytes=sum(path.stat().st_size for path in weights),
        seconds=round(time.time() - started, 1),
    )


def check(config) -> None:
    """Raises ValueError for what can be known to fail before any weight is read."""
    for knob, what in (("model", "the model to export"), ("output", "a new folder")):
        if not config[knob]:
            raise ValueError(f"config.{knob} is empty; set it to {what}.")
    output = Path(config.output).resolve()
    if output == Path(config.model).resolve():
        raise ValueError(f"config.output={config.output} is the model; name another.")
    check_replaceable(output)
    check_dtype(config.dtype)


def open_model(name: str, scratch: Path):
    """(model, tokenizer or None, folder that it came from or None).

    A model that came from no folder has a tokenizer of its own.
    """
    if (Path(name) / "checkpoints").is_dir():
        return open_run(Path(name))
    if name.endswith(".gguf") and Path(name).is_file():
        gguf.write_hf_folder(name, scratch / "gguf")
        folder = scratch / "gguf"
    else:
        folder = build.find_model(name, "student")
    return hf.load(folder), None, folder


def open_run(run: Path):
    """As `open_model`: the newest checkpoint of a run, or its export if it has none."""
    shape, tokenizer, folder = origin(run)
    abstract = jax.eval_shape(lambda: Transformer(shape, jax.random.key(0)))
    model = restore_model(run, abstract)
    if model is not None:
        return model, tokenizer, folder
    if folder == run / "export":
        return hf.load(folder), None, folder
    raise ValueError(
        f"{run} holds no checkpoint yet; config.checkpoint_every says when it will."
    )


def origin(run: Path):
    """(architecture, tokenizer or None, folder or None) of the model that a run
    trains."""
    exported = run / "export"
    if exported.is_dir():
        return hf.read_config(exported), None, exported
    name = flags.load(run).model
    if name in embedded.SIZES:
        tokenizer = embedded.arithmetic_tokenizer()
        return embedded.SIZES[name](len(tokenizer)), tokenizer, None
    folder = build.find_model(name, "student")
    return hf.read_config(folder), None, folder
