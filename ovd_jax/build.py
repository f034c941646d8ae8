"""From a config to the parts that the drivers put together."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
from transformers import AutoTokenizer

from ovd_jax import search
from ovd_jax.client.accounting import Accounting
from ovd_jax.client.cache import DiskCache
from ovd_jax.client.credentials import key_for
from ovd_jax.client.transport import Transport
from ovd_jax.conversation.dialogue import END_TAGS, Dialogue, TurnRules
from ovd_jax.conversation.refine import Refiner
from ovd_jax.errors import UserError
from ovd_jax.evaluation.served_student import ServedStudent
from ovd_jax.jsonl import read_object
from ovd_jax.methods import likeliest_tokens
from ovd_jax.models import hf
from ovd_jax.models.attention import FORMS
from ovd_jax.models.folders import fingerprint
from ovd_jax.models.hf_config import REMEDY
from ovd_jax.models.lora import Lora, adapt
from ovd_jax.models.sharding import check_heads, shardings
from ovd_jax.models.transformer import Transformer
from ovd_jax.paths import smollm2_dir
from ovd_jax.processes import FromMain
from ovd_jax.sampling.label_probs import label_probabilities
from ovd_jax.sampling.sampler import Sampler
from ovd_jax.search.pool import SearchBatch, SearchThreads
from ovd_jax.search.simulated import LocalWriter, ServedWriter, Writer
from ovd_jax.search.simulator_prompts import find_prompt
from ovd_jax.teacher.base import Teacher
from ovd_jax.teacher.local import LocalTeacher
from ovd_jax.teacher.openai_api import OpenAITeacher
from ovd_jax.teacher.prompts import load_prompt
from ovd_jax.teacher.roles import Roles
from ovd_jax.teacher.served_logprobs import ServedTokens
from ovd_jax.text import dated_template, one_line
from ovd_jax.toy import tokenizers


def close(*parts) -> None:
    """Ends the connections and threads of those that have any."""
    for part in parts:
        if hasattr(part, "close"):
            part.close()


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


def load_model(folder: Path, config, *, master: bool = False) -> Transformer:
    """The model in `folder`, computing in `config.compute_dtype`, on the mesh; it is
    never whole on one device.

    Its matrices are kept in that dtype too, which changes no result, unless it is to be
    trained: a `master` copy is float32.
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


def load_student(folder: Path, config) -> Transformer:
    """The model to train, with the adapters that `config.lora` asks for."""
    lora = Lora(**config.lora)  # refuses what cannot be before weights are read
    model = load_model(folder, config, master=not lora.rank)
    return adapt(model, lora, jax.random.key(config.seed))


def load_tokenizer(folder: Path, date: str = ""):
    """The tokenizer of a model folder; a chat template that asks for the day is told
    `date`, YYYY-MM-DD. Raises UserError if it cannot be read, is code of the folder's
    own, or has no end token."""
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
    if date and isinstance(tokenizer.chat_template, str):
        tokenizer.chat_template = dated_template(tokenizer.chat_template, date)
    if tokenizer.eos_token_id is None:
        raise UserError(f"The tokenizer in {folder} has no eos_token; set one.")
    return tokenizer


def stop_ids(folder: Path, tokenizer) -> tuple[int, ...]:
    """The tokenizer's end token, and those that `generation_config.json` or
    `config.json` list."""
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


def student_sampler(config, folder: Path, tokenizer, task, **changes) -> Sampler:
    """The sampler of `config`; `changes` are other fields than the training ones."""
    fields = {
        "max_new_tokens": config.max_new_tokens,
        "temperature": config.temperature,
        "top_k": config.top_k,
        "top_p": config.top_p,
        **shapes(config),
    }
    return Sampler(
        tokenizer=tokenizer,
        stop_ids=stop_ids(folder, tokenizer),
        stop_strings=(*task.stop_strings, *config.stop_strings),
        **fields | changes,
    )


def held_out_sampler(config, folder: Path, tokenizer, task) -> Sampler:
    """The sampler of held-out evaluation."""
    return student_sampler(
        config, folder, tokenizer, task, temperature=config.eval_temperature
    )


def shapes(config) -> dict[str, int]:
    """What all samplers of this process round their shapes up to."""
    return {name: config[name] for name in ("min_rows", "prompt_multiple")}


def make_dialogue(
    config, tokenizer, pool, *, training: bool, generate: Callable | None = None
) -> Dialogue | None:
    """Conversations with the engine in `pool`, of which they get a view of their own;
    None where there is none.

    In `training` a simulated engine is shown the gold answers. `generate` is the
    student's own, which `turns.refine` needs.
    """
    if pool is None:
        return None
    if config.turns.refine and generate is None:
        raise UserError("turns.refine is for evaluation; set it to False.")
    names = [field.name for field in dataclasses.fields(TurnRules)]
    chat = config.prompt_template == "chat"
    view = pool.view()
    if isinstance(view, SearchThreads):  # of several processes the first one searches
        view = FromMain(view, "start", "take")
    return Dialogue(
        view,
        rules=TurnRules(**{name: config.turns[name] for name in names}),
        tokenizer=tokenizer,
        with_golds=training and config.search.backend == "simulated",
        refine=Refiner(generate, tokenizer, chat=chat) if config.turns.refine else None,
    )


def make_search(config, *, training: bool) -> search.Search:
    """The engine of `config.search`; see the function of the same name there."""
    make_writer = functools.partial(simulator, config)
    return search.make_search(config, training=training, make_writer=make_writer)


def simulator(config) -> Writer:
    """The model that makes up documents, behind `config.search.url` or in this
    process."""
    options = config.search
    chat = find_prompt(options.prompt).chat
    if options.url:
        return ServedWriter(
            make_transport(
                options.url, options, name=options.served_name, knob="search.url"
            ),
            chat=chat,
            temperature=options.temperature,
            max_tokens=options.max_new_tokens,
        )
    folder = find_model(options.model, "teacher")
    tokenizer = load_tokenizer(folder, config.date)
    sampler = Sampler(
        tokenizer=tokenizer,
        stop_ids=stop_ids(folder, tokenizer),
        max_new_tokens=options.max_new_tokens,
        temperature=options.temperature,
        **shapes(config),
    )
    return LocalWriter(
        functools.partial(sampler, load_model(folder, config)),
        tokenizer,
        chat=chat,
        identity={
            "model": fingerprint(folder),
            "dtype": config.compute_dtype,
            "temperature": options.temperature,
            "max_tokens": options.max_new_tokens,
        },
    )


def make_pool(config, *, training: bool):
    """The engine of `config.search`, in threads, or called by all processes in step
    where it is a model in this process; None if nothing may search."""
    if not config.turns.searches:
        return None
    backend = make_search(config, training=training)
    if config.search.backend == "simulated" and not config.search.url:
        return SearchBatch(backend)
    return SearchThreads(backend)


def make_teacher(
    config, model: Transformer | None = None, *, judges: bool = True
) -> Teacher:
    """The teacher of `config`, with the continuer that `config.continuer` may name;
    `model` is the teacher's if it is in this process and loaded already. It is asked
    for scores if it `judges`."""
    scorer = one_teacher(config, model, judges=judges)
    if not (config.continuer.url or config.continuer.model):
        return scorer
    other = config.copy_and_resolve_references()
    other.teacher.update(config.continuer)
    return Roles(scorer, one_teacher(other, judges=False))


def one_teacher(
    config, model: Transformer | None = None, *, judges: bool = True
) -> Teacher:
    """The model behind `config.teacher.url`, or in this process if there is none."""
    if config.teacher.url:  # of several processes the first one asks
        served = served_teacher(config, judges=judges)
        return FromMain(served, "score", "demonstrate", "feedback")
    return local_teacher(config, model or teacher_model(config), judges=judges)


def served_teacher(config, *, judges: bool = True) -> OpenAITeacher:
    """A model behind one or several URLs with an OpenAI-compatible API."""
    options = config.teacher
    transport = make_transport(options.url, options, name=options.served_name)
    return OpenAITeacher(
        transport,
        prompt=load_prompt(options.prompt),
        score_rule=options.score_rule,
        score_temperature=options.score_temperature,
        temperature=options.temperature,
        max_new_tokens=options.max_new_tokens,
        on_failure=options.on_failure,
        stop=END_TAGS if config.turns.searches else (),
        cache=DiskCache(options.cache) if options.cache else None,
        judges=judges,
        thoughts=bool(config.turns.searches),
    )


def served_student(
    config, folder: Path, tokenizer, stop_strings: tuple[str, ...], temperature: float
) -> ServedStudent:
    """The student behind the server at `config.engine`; `folder` has its tokenizer."""
    return ServedStudent(
        make_transport(config.engine, config.teacher, name="", knob="engine"),
        tokenizer=tokenizer,
        max_new_tokens=config.max_new_tokens,
        temperature=temperature,
        top_k=config.top_k,
        top_p=config.top_p,
        stop_strings=(*stop_strings, *config.stop_strings),
        stop_ids=stop_ids(folder, tokenizer),
    )


def make_transport(
    urls: str, options, *, name: str, knob: str = "teacher.url"
) -> Transport:
    """Requests to the servers at `urls`, which `knob` gives; `options` are knobs such
    as `teacher.*`."""
    return Transport(
        [url.strip() for url in urls.split(",")],
        name=name,
        key=key_for(urls, options, knob),
        timeout_s=options.timeout_s,
        retries=options.retries,
        wait=options.on_failure == "wait",
        most=options.max_concurrency,
        accounting=Accounting(),
    )


def sample_until(sampler: Sampler, model, prompts, *, stop=(), **options):
    """As `sampler` with `options`, and with further strings to stop at."""
    if stop:
        stops = (*sampler.stop_strings, *stop)
        sampler = dataclasses.replace(sampler, stop_strings=stops)
    return sampler(model, prompts, **options)


def make_token_teacher(config, tokenizer) -> Transformer | ServedTokens:
    """A teacher of token-level distillation: one that is served, or the model itself.

    Raises UserError where its tokenizer is not the student's.
    """
    options = config.teacher
    if options.url:
        transport = make_transport(options.url, options, name=options.served_name)
        top = max(likeliest_tokens(config), 1)  # 0 means "none at all" to servers
        served = ServedTokens(transport, tokenizer=tokenizer, top=top)
        return FromMain(served, "read")
    folder = find_model(options.model, "teacher")
    if load_tokenizer(folder).get_vocab() != tokenizer.get_vocab():
        raise UserError(
            f"The tokenizer of teacher.model={options.model} has another vocabulary "
            "than the student's. Token-level distillation needs one tokenizer; the "
            "methods ovd, seq_kd and dpo_pairs do not."
        )
    return teacher_model(config)


def teacher_model(config) -> Transformer:
    """The weights that `config.teacher.model` names."""
    return load_model(find_model(config.teacher.model, "teacher"), config)


def local_teacher(config, model: Transformer, *, judges: bool = True) -> LocalTeacher:
    """A model in this process."""
    options = config.teacher
    folder = find_model(options.model, "teacher")
    tokenizer = load_tokenizer(folder, config.date)
    sampler = Sampler(
        tokenizer=tokenizer,
        stop_ids=stop_ids(folder, tokenizer),
        max_new_tokens=options.max_new_tokens,
        temperature=options.temperature,
        **shapes(config),
        stop_strings=END_TAGS if config.turns.searches else (),
    )
    return LocalTeacher(
        generate=functools.partial(sample_until, sampler, model),
        label_probabilities=functools.partial(
            label_probabilities, model, rows=options.rows
        ),
        tokenizer=tokenizer,
        prompt=load_prompt(options.prompt),
        score_rule=options.score_rule,
        score_temperature=options.score_temperature,
        judges=judges,
        thoughts=bool(config.turns.searches),
    )
