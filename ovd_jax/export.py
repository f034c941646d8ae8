"""Writes a run, a folder or a GGUF file as a Hugging Face folder."""

import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from ovd_jax.cli import flags
from ovd_jax.errors import UserError
from ovd_jax.learning.checkpoint import restore_model
from ovd_jax.models import gguf, hf
from ovd_jax.models.folders import check_replaceable, fingerprint
from ovd_jax.models.lora import Lora, adapt, merge
from ovd_jax.models.shards import check_dtype
from ovd_jax.models.transformer import Transformer, TransformerConfig
from ovd_jax.reporting.run_dir import check_origin
from ovd_jax.text import Tokenizer
from ovd_jax.toy import tokenizers
from ovd_jax.wiring.models import find_model

DEFAULT = "default"  # has what a run of train or sft is opened by


def main(config: ConfigDict) -> None:
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


def check(config: ConfigDict) -> None:
    """Raises UserError for errors that can be found before any weight is read."""
    for knob, what in (("model", "the model to export"), ("output", "a new folder")):
        if not config[knob]:
            raise UserError(f"config.{knob} is empty; set it to {what}.")
    output = Path(config.output).resolve()
    if output == Path(config.model).resolve():
        raise UserError(f"config.output={config.output} is the model; name another.")
    check_replaceable(output)
    check_dtype(config.dtype)


def open_model(
    name: str, scratch: Path
) -> tuple[Transformer, Tokenizer | None, Path | None]:
    """(model, tokenizer or None, source folder or None); a model without a source has
    its own tokenizer."""
    if (Path(name) / "checkpoints").is_dir():
        return open_run(Path(name))
    if name.endswith(".gguf") and Path(name).is_file():
        gguf.write_hf_folder(name, scratch / "gguf")
        folder = scratch / "gguf"
    else:
        folder = find_model(name, "student")
    return hf.load(folder), None, folder


def open_run(run: Path) -> tuple[Transformer, Tokenizer | None, Path | None]:
    """Like `open_model`, from the newest checkpoint of a run, or its export without
    one."""
    model, tokenizer, folder = origin(run)
    model = restore_model(run, model)
    if model is not None:
        return merge(model), tokenizer, folder
    exported = run / "export"
    if exported.is_dir():
        return hf.load(exported), None, exported
    raise UserError(
        f"{run} holds no checkpoint yet; config.checkpoint_every says when it will."
    )


def origin(run: Path) -> tuple[Transformer, Tokenizer | None, Path | None]:
    """(model, tokenizer or None, folder or None) that a run started from.

    Arrays in checkpoints are shapes only.
    """
    config, exported = flags.load(run, default=DEFAULT), run / "export"
    if config.lora.rank:
        folder = find_model(config.model, "student")
        origin = {"model": config.model, "fingerprint": fingerprint(folder)}
        check_origin(run, origin, resumed=True)
        model = hf.load(folder, matrices=jnp.dtype(config.compute_dtype))
        return adapt(model, Lora(**config.lora), jax.random.key(0)), None, folder
    if exported.is_dir():
        return shapes(hf.read_config(exported)), None, exported
    if config.model in tokenizers.SIZES:
        tokenizer = tokenizers.arithmetic_tokenizer()
        return shapes(tokenizers.SIZES[config.model](len(tokenizer))), tokenizer, None
    folder = find_model(config.model, "student")
    return shapes(hf.read_config(folder)), None, folder


def shapes(architecture: TransformerConfig) -> Transformer:
    """A model without weights."""
    return jax.eval_shape(lambda: Transformer(architecture, jax.random.key(0)))
