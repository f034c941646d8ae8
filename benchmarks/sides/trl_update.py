"""One GRPO optimizer step of TRL's trainer on torch's CPU, AdamW.

The trainer runs as it is, with its generation and scoring replaced by completions of
the work's lengths, padded to `max_completion`.
"""

import tempfile
import time

import numpy as np
import timing
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    TrainerCallback,
)
from trl import GRPOConfig, GRPOTrainer

work = timing.work()
rng = np.random.default_rng(0)
lengths = np.concatenate(work["lengths"])
torch.manual_seed(0)
model = LlamaForCausalLM(
    LlamaConfig(
        vocab_size=49_152, hidden_size=576, intermediate_size=1536,
        num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3,
        rms_norm_eps=1e-5, tie_word_embeddings=True, max_position_embeddings=8192,
    )
)  # fmt: skip
vocabulary = Tokenizer(models.WordLevel({"<pad>": 0, "<eos>": 2}, unk_token="<pad>"))
tokenizer = PreTrainedTokenizerFast(
    tokenizer_object=vocabulary, pad_token="<pad>", eos_token="<eos>"
)


class Trainer(GRPOTrainer):
    """GRPO's trainer with completions at hand."""

    def _generate_and_score_completions(self, inputs):
        shape = (len(lengths), work["max_completion"])
        prompts = rng.integers(3, 49_152, (len(lengths), work["prompt"]))
        mask = torch.arange(shape[1])[None] < torch.tensor(lengths)[:, None]
        return {
            "prompt_ids": torch.tensor(prompts),
            "prompt_mask": torch.ones(prompts.shape, dtype=torch.long),
            "completion_ids": torch.tensor(rng.integers(3, 49_152, shape)) * mask,
            "completion_mask": mask.long(),
            "advantages": torch.tensor(
                rng.normal(size=len(lengths)), dtype=torch.float
            ),
            "num_items_in_batch": mask.sum(),
        }


class Clock(TrainerCallback):
    """Seconds of each optimizer step."""

    def __init__(self):
        self.steps = []

    def on_step_begin(self, *_, **__):
        """Starts the watch."""
        self.started = time.perf_counter()

    def on_step_end(self, *_, **__):
        """Stops it."""
        self.steps.append(time.perf_counter() - self.started)


with tempfile.TemporaryDirectory() as folder:
    clock = Clock()
    trainer = Trainer(
        model=model,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        processing_class=tokenizer,
        train_dataset=Dataset.from_dict({"prompt": ["-"] * 64}),
        args=GRPOConfig(
            output_dir=folder, max_steps=work["repeats"] + 1,
            use_cpu=True, bf16=False,
            per_device_train_batch_size=8, num_generations=8, beta=0.0,
            gradient_accumulation_steps=len(lengths) // 8, loss_type="grpo",
            gradient_checkpointing=work["checkpointing"], report_to=[],
            save_strategy="no", disable_tqdm=True, max_completion_length=256,
        ),
        callbacks=[clock],
    )  # fmt: skip
    trainer.train()
timing.report(
    seconds=float(np.median(clock.steps[1:])),
    temporaries_mib=None,
    slots=None,
)
