"""From a config to the parts that the drivers put together."""

import functools
import json
import os
import re
from pathlib import Path

import jax
import jax.numpy as jnp
from transformers import AutoTokenizer

from ovd_jax.learning.sharding import check_heads, shardings
from ovd_jax.models import embedded, hf
from ovd_jax.models.attention import FORMS
from ovd_jax.models.lora import Lora, adapt
from ovd_jax.models.transformer import Transformer
from ovd_jax.paths import smollm2_dir
from ovd_jax.processes import FromMain
from ovd_jax.sampling.choice import label_probabilities
from ovd_jax.sampling.sampler import Sampler
from ovd_jax.teacher.accounting import Accounting
from ovd_jax.teacher.cache import DiskCache
from ovd_jax.teacher.local import LocalTeacher
from ovd_jax.teacher.openai_api import OpenAITeacher
from ovd_jax.teacher.prompts import PROMPTS
from ovd_jax.teacher.transport import Transport


def find_model(name: str, role: str) -> Path:
    """The Hugging Face folder of `name`.

    That is `quickstart` (the embedded `role`, student or teacher), `smollm2` (what
    launch/fetch_smollm2.py wrote), a run directory, a folder or a hub name.
    """
    if name == "quickstart":
        return embedded.FOLDER / role
    if name == "smollm2":
        if not smollm2_dir().is_dir():
            raise ValueError(
                f"SmolLM2 is not at {smollm2_dir()}: run launch/fetch_smollm2.py first."
            )
        return smollm2_dir()
    if (Path(name) / "export").is_dir():
        return Path(name) / "export"
    if (Path(name) / "checkpoints").is_dir():
        raise ValueError(
            f"{name} is a run without an export; write one with `python "
            f"launch/export.py --config.model={name} --config.output=DIR`."
        )
    return hf.resolve(name)


def load_model(folder: Path, config, *, master: bool = False) -> Transformer:
    """The model in `folder`, computing in `config.compute_dtype`, on the mesh; it is
    never whole on one device.

    Its matrices are kept in that dtype too, which changes no result, unless it is to be
    trained: a `master` copy is float32.
    """
    if config.attention not in FORMS:
        raise ValueError(
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


def load_student(folder: Path, config) -> Transformer:
    """The model to train, with the adapters that `config.lora` asks for."""
    lora = Lora(**config.lora)  # refuses what cannot be before weights are read
    model = load_model(folder, config, master=not lora.rank)
    return adapt(model, lora, jax.random.key(config.seed))


def load_tokenizer(folder: Path):
    """The tokenizer of a model folder. Raises ValueError if it has no end token."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if tokenizer.eos_token_id is None:
        raise ValueError(f"The tokenizer in {folder} has no eos_token; set one.")
    return tokenizer


def stop_ids(folder: Path, tokenizer) -> tuple[int, ...]:
    """The tokenizer's end token and those of `generation_config.json`."""
    path = Path(folder) / "generation_config.json"
    raw = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    listed = raw.get("eos_token_id")
    listed = listed if isinstance(listed, list) else [listed]
    return tuple(
        sorted({tokenizer.eos_token_id, *(i for i in listed if i is not None)})
    )


def student_sampler(config, folder: Path, tokenizer, task, **changes) -> Sampler:
    """The sampler of `config`; `changes` are other fields than the training ones."""
    fields = {
        "max_new_tokens": config.max_new_tokens,
        "temperature": config.temperature,
        "top_k": config.top_k,
        "top_p": config.top_p,
        "min_prompts": config.min_prompts,
    }
    return Sampler(
        tokenizer=tokenizer,
        stop_ids=stop_ids(folder, tokenizer),
        stop_strings=(*task.stop_strings, *config.stop_strings),
        **fields | changes,
    )


def make_teacher(config):
    """The teacher behind `config.teacher.url`, or in this process if there is none."""
    options = config.teacher
    if options.prompt not in PROMPTS:
        raise ValueError(
            f"teacher.prompt {options.prompt!r} is not one of {', '.join(PROMPTS)}."
        )
    if options.url:  # of several processes the first one asks
        return FromMain(served_teacher(config), "score", "demonstrate")
    return local_teacher(config)


def served_teacher(config) -> OpenAITeacher:
    """A model behind one or several URLs with an OpenAI-compatible API."""
    options = config.teacher
    if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", options.api_key_env):
        # Not shown: it may be the key itself, which must not get into any log.
        raise ValueError(
            "teacher.api_key_env is not the name of an environment variable, such as "
            "OPENAI_API_KEY; the key itself belongs into that variable."
        )
    transport = Transport(
        [url.strip() for url in options.url.split(",")],
        name=options.served_name,
        key=os.environ.get(options.api_key_env),
        timeout_s=options.timeout_s,
        retries=options.retries,
        wait=options.on_failure == "wait",
        most=options.max_concurrency,
        accounting=Accounting(),
    )
    return OpenAITeacher(
        transport,
        prompt=PROMPTS[options.prompt],
        score_rule=options.score_rule,
        score_temperature=options.score_temperature,
        temperature=options.temperature,
        max_new_tokens=options.max_new_tokens,
        on_failure=options.on_failure,
        cache=DiskCache(options.cache) if options.cache else None,
    )


def local_teacher(config) -> LocalTeacher:
    """A model in this process."""
    options = config.teacher
    folder = find_model(options.model, "teacher")
    tokenizer = load_tokenizer(folder)
    model = load_model(folder, config)
    sampler = Sampler(
        tokenizer=tokenizer,
        stop_ids=stop_ids(folder, tokenizer),
        max_new_tokens=options.max_new_tokens,
        temperature=options.temperature,
        min_prompts=options.min_prompts,
    )
    return LocalTeacher(
        generate=functools.partial(sampler, model),
        label_probabilities=functools.partial(
            label_probabilities, model, rows=options.rows
        ),
        tokenizer=tokenizer,
        prompt=PROMPTS[options.prompt],
        score_rule=options.score_rule,
        score_temperature=options.score_temperature,
    )
