"""Model folders: weights, tokenizers, end tokens."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
from transformers import AutoTokenizer

from ovd_jax.errors import UserError
from ovd_jax.jsonl import read_object
from ovd_jax.models import hf
from ovd_jax.models.attention import FORMS
from ovd_jax.models.hf_config import REMEDY
from ovd_jax.models.lora import Lora, adapt
from ovd_jax.models.sharding import check_heads, shardings
from ovd_jax.models.transformer import Transformer
from ovd_jax.paths import smollm2_dir
from ovd_jax.reporting.run_dir import checked_date
from ovd_jax.sampling.sampler import Sampler
from ovd_jax.text import Tokenizer, dated_template, one_line
from ovd_jax.toy import tokenizers


def dated(config: ConfigDict, date: str) -> ConfigDict:
    """`config` with a `date` for chat templates: its own or, by default, the given
    one."""
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.date = checked_date(config.date or date, "config.date")
    return config


def find_model(name: str, role: str) -> Path:
    """The Hugging Face folder of `name`.

    That is `quickstart` (the embedded `role`, student or teacher), `world` (the same of
    the made-up world: student or teacher), `smollm2` (what
    launch/fetch_smollm2.py wrote), a run directory, a folder or a hub name.
    """
    if name == "quickstart":
        return tokenizers.FOLDER / role
    if name == "world":
        return tokenizers.FOLDER / f"world_{role}"
    if name == "smollm2":
        if not smollm2_dir().is_dir():
            raise UserError(
                f"SmolLM2 is not at {smollm2_dir()}: run launch/fetch_smollm2.py first."
            )
        return smollm2_dir()
    if (Path(name) / "export").is_dir():
        return Path(name) / "export"
    if (Path(name) / "checkpoints").is_dir():
        raise UserError(
            f"{name} is a run without an export; write one with `python "
            f"launch/export.py --config.model={name} --config.output=DIR`."
        )
    return hf.resolve(name)


def load_model(
    folder: Path, config: ConfigDict, *, master: bool = False
) -> Transformer:
    """The model in `folder` with `config.compute_dtype`, sharded over the mesh as it is
    read.

    Matrices are stored in that dtype too, which changes no result, unless the model is
    to be trained: a `master` copy is float32.
    """
    if config.attention not in FORMS:
        raise UserError(
            f"attention {config.attention!r} is not one of {', '.join(FORMS)}."
        )
    dtype = jnp.dtype(config.compute_dtype)
    model = _read_model(folder, dtype, jnp.float32 if master else dtype)
    model.attention = config.attention
    return model


def _read_model(folder: Path, dtype, matrices) -> Transformer:
    mesh = jax.sharding.get_mesh()
    if mesh.empty:
        return hf.load(folder, dtype, matrices=matrices)
    architecture = hf.read_config(folder)
    check_heads(architecture.num_kv_heads, mesh)
    abstract = jax.eval_shape(
        lambda: Transformer(architecture, jax.random.key(0), dtype)
    )
    return hf.load(folder, dtype, shardings(abstract, mesh), matrices=matrices)


def load_student(folder: Path, config: ConfigDict) -> Transformer:
    """The model to train, with the adapters that `config.lora` asks for."""
    lora = Lora(**config.lora)  # refuses wrong knobs before weights are read
    model = load_model(folder, config, master=not lora.rank)
    return adapt(model, lora, jax.random.key(config.seed))


def load_tokenizer(folder: Path, date: str = "") -> Tokenizer:
    """The tokenizer of a model folder; chat templates that ask for the day get `date`,
    YYYY-MM-DD. Raises UserError if it cannot be read, needs code of the folder, or has
    no end token."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # the library raises a dozen types for a broken file
        if "custom code" in str(error):
            raise UserError(
                f"The tokenizer in {folder} is Python code of that folder, which is "
                "not run; use a model whose folder has a tokenizer.json."
            ) from error
        said = one_line(str(error))[:200]
        raise UserError(
            f"The tokenizer in {folder} cannot be read ({type(error).__name__}: "
            f"{said}); fetch its files again."
        ) from error
    template = tokenizer.chat_template
    if date and isinstance(template, dict):  # of several names
        template = {x: dated_template(text, date) for x, text in template.items()}
    elif date and template:
        template = dated_template(template, date)
    tokenizer.chat_template = template
    if tokenizer.eos_token_id is None:
        raise UserError(f"The tokenizer in {folder} has no eos_token; set one.")
    check_ends(folder, tokenizer)
    return tokenizer


def check_ends(folder: Path, tokenizer: Tokenizer) -> None:
    """Raises UserError unless the model in `folder` has the tokens that begin and end a
    text: one without the latter never stops."""
    path = Path(folder) / "config.json"
    raw = read_object(path, remedy=REMEDY) if path.is_file() else {}
    size = raw.get("vocab_size")
    for name in ("bos_token", "eos_token"):
        token = getattr(tokenizer, f"{name}_id")
        if type(size) is int and token is not None and token >= size:
            raise UserError(
                f"The {name} of the tokenizer in {folder} is {token}, and the model "
                f"has {size} tokens (vocab_size in config.json); take the tokenizer "
                "that it was trained with."
            )


def stop_ids(folder: Path, tokenizer: Tokenizer) -> tuple[int, ...]:
    """The tokenizer's end token, and those in `generation_config.json` or
    `config.json`."""
    found = {tokenizer.eos_token_id}
    for name in ("generation_config.json", "config.json"):
        path = Path(folder) / name
        listed = (
            read_object(path, remedy=REMEDY).get("eos_token_id")
            if path.is_file()
            else None
        )
        listed = listed if isinstance(listed, list) else [listed]
        if not all(x is None or type(x) is int for x in listed):
            raise UserError(f"{path} has the eos_token_id {listed}; use token ids.")
        found |= {x for x in listed if x is not None}
    return tuple(sorted(found))


def shapes(config: ConfigDict) -> dict[str, Any]:
    """The shape rounding of all samplers of this process."""
    return {name: config[name] for name in ("min_rows", "prompt_multiple")}


def text_sampler(
    config: ConfigDict, options: ConfigDict, folder: Path, tokenizer: Tokenizer
) -> Sampler:
    """The sampler of a teacher or simulator in this process; `options` are its
    knobs."""
    return Sampler(
        tokenizer=tokenizer,
        stop_ids=stop_ids(folder, tokenizer),
        max_new_tokens=options.max_new_tokens,
        temperature=options.temperature,
        **shapes(config),
    )
