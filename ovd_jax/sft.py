"""Supervised fine-tuning: of the embedded models, or of any model on your own rows."""

import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from ovd_jax import text
from ovd_jax.cli import flags
from ovd_jax.errors import UserError
from ovd_jax.learning.checkpoint import Checkpoints
from ovd_jax.learning.update import (
    Optimizer,
    Stepper,
    TrainState,
    imitation_objective,
    optimizer,
)
from ovd_jax.models import hf
from ovd_jax.models.attention import Layout
from ovd_jax.models.folders import fingerprint
from ovd_jax.models.lora import merge
from ovd_jax.models.transformer import Transformer, TransformerConfig
from ovd_jax.reporting.collapse import CollapseDetector, stop_if_collapsed
from ovd_jax.reporting.monitor import Monitor, enable_compilation_cache
from ovd_jax.reporting.progress import Progress
from ovd_jax.reporting.run_dir import RunDir, check_origin
from ovd_jax.tasks.arithmetic import ArithmeticTask
from ovd_jax.tasks.data.examples import Example, file_examples
from ovd_jax.text import Tokenizer
from ovd_jax.toy import tokenizers
from ovd_jax.toy.arithmetic_examples import arithmetic_examples
from ovd_jax.toy.world_examples import world_examples
from ovd_jax.training.keeper import Keeper
from ovd_jax.wiring.combinations import check_tuning
from ovd_jax.wiring.models import find_model, load_student, load_tokenizer
from ovd_jax.wiring.run_identity import owns_run_dir
from ovd_jax.wiring.task import make_task


@owns_run_dir(default="sft")
def main(config: ConfigDict) -> None:
    """Trains as `config` says and writes a Hugging Face folder to `run_dir/export`."""
    started = time.time()
    check_tuning(config)
    enable_compilation_cache()
    checkpoints = Checkpoints(config.run_dir, every=config.checkpoint_every)
    source = source_of(config)
    if source is not None:  # before its weights are read
        origin = {"model": config.model, "fingerprint": fingerprint(source)}
        check_origin(config.run_dir, origin, resumed=checkpoints.exist)
    model, tokenizer = starting_model(config, source)
    batches = batch_source(config, tokenizer, example_source(config), model.config)
    tx = optimizer(**config.optimizer, total_steps=config.num_steps)
    state = checkpoints.restore_latest(TrainState.create(model, tx))
    flags.save(config, config.run_dir)
    state, metrics = train(config, state, tx, batches, checkpoints, started)
    export = Path(config.run_dir) / "export"
    dtype = jnp.dtype(config.export_dtype)
    hf.save(merge(state.model), export, tokenizer, dtype, source=source)
    flags.summary(
        loss=metrics.get("loss"), steps=int(state.step),
        seconds=round(time.time() - started, 1), export=str(export),
    )  # fmt: skip


def train(
    config: ConfigDict, state: TrainState, tx: Optimizer, batches: Callable,
    checkpoints: Checkpoints, started: float,
) -> tuple[TrainState, dict[str, float]]:  # fmt: skip
    """All steps from `state` on: (state, metrics of the last logged step)."""
    step_fn = Stepper(
        functools.partial(imitation_objective, chunk=config.chunk, remat=config.remat),
        tx,
    )
    start, tokens, metrics = int(state.step), 0, {}
    monitor = Monitor()
    detector = CollapseDetector({}, window=0, max_skipped=config.max_skipped)
    with (
        RunDir(config.run_dir, start) as run,
        Progress(config.num_steps, start) as bar,
        Keeper(checkpoints, start=start, total=config.num_steps) as keeper,
    ):
        checkpoints.before_save = run.sync
        for step in range(start, config.num_steps):
            batch = batches(step)
            with keeper.whole_step():
                state, metrics = step_fn(state, [batch])
                tokens += int((batch[1] > 0).sum())
                if step % config.log_every == 0 or step + 1 == config.num_steps:
                    rate = tokens / (time.time() - started)
                    metrics = jax.device_get(metrics) | {"tokens_per_s": rate}
                    metrics |= {"learning_rate": tx.learning_rate(state)}
                    run.log(step, metrics | monitor.take())
                    bar.update(step, metrics)
                    metrics = {name: float(value) for name, value in metrics.items()}
                    stop_if_collapsed(detector, metrics, checkpoints, state)
                checkpoints.save(state)
                keeper.done(state)
    checkpoints.save(state, force=config.checkpoint_every > 0)
    checkpoints.close()
    return state, metrics


def source_of(config: ConfigDict) -> Path | None:
    """The folder of the model to tune; a fresh embedded model has none."""
    if config.model not in tokenizers.SIZES:
        return find_model(config.model, "student")
    if config.lora.rank:
        raise UserError(
            f"config.model={config.model} starts from nothing, which adapters cannot "
            "make up for; set config.lora.rank=0, or name a trained model."
        )
    return None


def starting_model(
    config: ConfigDict, source: Path | None
) -> tuple[Transformer, Tokenizer]:
    """The model in the folder `source`, or a fresh one, and its tokenizer."""
    if source is not None:
        return load_student(source, config), load_tokenizer(source)
    tokenizer = tokenizers.TOKENIZERS[config.task]()
    shape = tokenizers.SIZES[config.model](len(tokenizer))
    return Transformer(shape, jax.random.key(config.seed)), tokenizer


def example_source(config: ConfigDict) -> Callable[[int, int], list[Example]]:
    """`(step, count) -> examples`, from a JSONL file or the task's generator."""
    if config.data:
        return file_examples(config.data, seed=config.seed)
    if config.task == "world":
        return world_examples(
            seed=config.seed,
            judged_share=config.judged_share,
            judged_data=config.judged_data,
            **config.world,
        )
    task = make_task(config)
    if not isinstance(task, ArithmeticTask):
        raise UserError(
            f"config.task={config.task} has no examples to tune on; set config.data to "
            "a file of your own."
        )
    return arithmetic_examples(
        task,
        judged_share=config.judged_share,
        judged_data=config.judged_data,
    )


def batch_source(
    config: ConfigDict,
    tokenizer: Tokenizer,
    examples: Callable[[int, int], list[Example]],
    architecture: TransformerConfig,
) -> Callable:
    """`step -> (tokens_BT, weights_BT, layout)`; like lengths share a batch, in which
    the weights sum to 1.

    `sort_window` batches are drawn together, sorted by length and dealt out in a random
    order: padding is small, and the batch is still a function of seed and step. The
    examples of `packed` batches are taken as they come and share rows.
    """

    def drawn(index, count):
        rows = [encode(tokenizer, example) for example in examples(index, count)]
        last = max(position for row in rows for _, _, position, _, _ in row)
        architecture.check_length(last + 1, "An example")
        used = (token for row in rows for token, *_ in row)
        architecture.check_tokens(used, "An example")
        return rows

    @functools.lru_cache(maxsize=1)  # steps come in order
    def window(index):
        return sorted(drawn(index, config.batch_size * config.sort_window), key=len)

    def batch(step):
        if config.packed:
            rows = packed(drawn(step, config.batch_size), config.max_tokens)
            return pad_rows(rows, config.max_tokens, full=True)
        index, offset = divmod(step, config.sort_window)
        rng = np.random.default_rng((config.seed, index))
        first = rng.permutation(config.sort_window)[offset] * config.batch_size
        rows = window(index)[first : first + config.batch_size]
        return pad_rows(rows, config.max_tokens)

    return batch


def encode(
    tokenizer: Tokenizer, example: Example
) -> list[tuple[int, float, int, int, int]]:
    """(token id, weight, position, segment, prefix) of each token; see `Layout`.

    The text is segment 1, its branches come after it as segments 2 and up.
    """
    ids = functools.partial(text.encode_continuation, tokenizer)
    (first, own), *others = example.pieces
    prompt = text.encode(tokenizer, text.plain_prompt(tokenizer, first))
    rows = [(token, own) for token in prompt]
    lengths = [0, len(rows)]
    for piece, weight in others:
        rows += [(token, weight) for token in ids(piece)]
        lengths.append(len(rows))
    if example.ends:
        rows.append((tokenizer.eos_token_id, 1.0))
    rows = [(*row, position, 1, 0) for position, row in enumerate(rows)]
    for segment, branch in enumerate(example.branches, 2):
        prefix = lengths[branch.after]
        tokens = [(t, weight) for piece, weight in branch.pieces for t in ids(piece)]
        rows += [
            (token, weight, position, segment, prefix)
            for position, (token, weight) in enumerate(tokens, prefix)
        ]
    return rows


def packed(encoded: Sequence[list], max_tokens: int) -> list[list]:
    """Rows of several examples that do not see one another: longest first, each in the
    first row with room. An example with branches has its own row."""
    rows, segments = [], []
    for example in sorted(encoded, key=len, reverse=True):
        branched = any(segment > 1 for _, _, _, segment, _ in example)
        room = (
            i for i, row in enumerate(rows) if len(row) + len(example) <= max_tokens
        )
        place = None if branched else next((i for i in room if segments[i]), None)
        if place is None:
            rows.append(list(example))
            segments.append(0 if branched else 1)
        else:
            segments[place] += 1
            rows[place] += [
                # Nothing foretells the first token: another example is before it.
                (token, weight if position else 0.0, position, segments[place], 0)
                for token, weight, position, _, _ in example
            ]
    return rows


def pad_rows(
    rows: Sequence[list], max_tokens: int, *, full: bool = False
) -> tuple[np.ndarray, np.ndarray, Layout]:
    """Rows right-padded to a multiple of 16, or of 64 above 128, for few shapes, or if
    `full` to `max_tokens`; one over `max_tokens` is refused."""
    longest = max(map(len, rows))
    if longest > max_tokens:
        raise UserError(
            f"An example has {longest} tokens, over config.max_tokens={max_tokens}; "
            "raise it or shorten the data."
        )
    multiple = 16 if longest <= 128 else 64
    shape = (len(rows), max_tokens if full else -(-longest // multiple) * multiple)
    tokens, positions, segments, prefix = (np.zeros(shape, np.int32) for _ in range(4))
    weights = np.zeros(shape, np.float32)
    for index, row in enumerate(rows):
        columns = (tokens, weights, positions, segments, prefix)
        for array, column in zip(columns, zip(*row, strict=True), strict=True):
            array[index, : len(row)] = column
    bin_size = None if prefix.any() else shape[1]  # without branches, plain causality
    layout = Layout(positions, segments, prefix, bin_size=bin_size)
    return tokens, weights / weights.sum(), layout
