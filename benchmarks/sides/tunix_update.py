"""One GRPO optimizer step of Tunix: its Llama, its loss, its train step, AdamW.

The rows of a batch are padded to the longest prompt and to `max_completion`, as its
learner does. A batch that is cut into several is accumulated by `optax.MultiSteps`, as
its trainer does.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import timing
from flax import nnx
from tunix.models.llama3.model import Llama3, ModelConfig, RematConfig
from tunix.rl import algo_core, common
from tunix.rl.grpo.grpo_learner import GRPOConfig

PAD, EOS = 0, 2
work = timing.work()
rng = np.random.default_rng(0)
lengths = np.concatenate(work["lengths"])
config = ModelConfig(
    num_layers=30, vocab_size=49_152, embed_dim=576, hidden_dim=1536, num_heads=9,
    head_dim=64, num_kv_heads=3, rope_theta=100_000, norm_eps=1e-5, weight_tying=True,
    remat_config=RematConfig[work["remat"]],
)  # fmt: skip
model = Llama3(config, rngs=nnx.Rngs(0))
parts = len(lengths) // work["rows"]
tx = optax.adamw(1e-6)
tx = optax.MultiSteps(tx, parts) if parts > 1 else tx
optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
algorithm = GRPOConfig(num_generations=8, beta=0.0)
algorithm.temperature = 1.0


def example(lengths) -> common.TrainExample:
    """Rows with completions of these lengths."""
    shape = (len(lengths), work["max_completion"])
    mask = np.arange(shape[1])[None] < lengths[:, None]
    prompts = rng.integers(3, config.vocab_size, (len(lengths), work["prompt"]))
    completions = rng.integers(3, config.vocab_size, shape)
    return common.TrainExample(
        prompt_ids=jnp.asarray(prompts, jnp.int32),
        prompt_mask=jnp.ones(prompts.shape, bool),
        completion_ids=jnp.asarray(np.where(mask, completions, PAD), jnp.int32),
        completion_mask=jnp.asarray(mask),
        advantages=jnp.asarray(rng.normal(size=len(lengths)), jnp.float32),
        ref_per_token_logps=None,
        old_per_token_logps=None,
    )


def train_step(model, optimizer, example):
    """`PeftTrainer._train_step` with `grpo_loss_fn`."""
    grad_fn = nnx.value_and_grad(algo_core.grpo_loss_fn, has_aux=True)
    (loss, _), grads = grad_fn(
        model, example, algo_config=algorithm, pad_id=PAD, eos_id=EOS
    )
    grad_norm = optax.global_norm(grads)
    optimizer.update(model, grads)
    return loss, grad_norm


examples = [example(part) for part in np.split(lengths, parts)]
jitted = nnx.jit(train_step, donate_argnames=("optimizer",))
cached = nnx.cached_partial(jitted, model, optimizer)


def step(_) -> None:
    """All parts of a batch."""
    for part in examples:
        jax.block_until_ready(cached(part))


seconds = timing.seconds(step, work["repeats"])
memory = jitted.lower(model, optimizer, examples[0]).compile().memory_analysis()
timing.report(
    seconds=seconds, temporaries_mib=memory.temp_size_in_bytes / 2**20, slots=None
)
