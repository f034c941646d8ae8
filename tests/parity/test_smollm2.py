"""SmolLM2-135M-Instruct, real weights: our greedy decoding is `transformers`'s."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ovd_jax.build import load_tokenizer
from ovd_jax.models import hf
from ovd_jax.sampling.sampler import Sampler

ROOT = Path(__file__).parents[2]
ROWS = ROOT / "ovd_jax/embedded/data/gsm8k_test_sample.jsonl"
NEW_TOKENS = 64


@pytest.fixture(scope="module")
def folder():
    done = subprocess.run(
        [sys.executable, str(ROOT / "launch/fetch_smollm2.py")],
        capture_output=True, text=True, timeout=600, env=dict(os.environ),
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"SmolLM2 cannot be fetched here: {done.stderr[-300:]}")
    return Path(json.loads(done.stdout.splitlines()[-1])["path"])


@pytest.mark.slow
def test_greedy_continuations_of_twenty_prompts_equal_those_of_transformers(folder):
    torch = pytest.importorskip("torch")
    import transformers

    tokenizer = load_tokenizer(folder)
    questions = [json.loads(line)["question"] for line in ROWS.open()][:20]
    prompts = [
        tokenizer(
            tokenizer.apply_chat_template(
                [{"role": "user", "content": question}],
                tokenize=False,
                add_generation_prompt=True,
            ),
            add_special_tokens=False,
        )["input_ids"]
        for question in questions
    ]
    sampler = Sampler(
        tokenizer=tokenizer,
        stop_ids=(tokenizer.eos_token_id,),
        max_new_tokens=NEW_TOKENS,
        temperature=0.0,
    )
    ours = sampler(hf.load(folder), prompts, seed=0)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32
    )
    for prompt, (completion,) in zip(prompts, ours, strict=True):
        with torch.no_grad():
            output = model.generate(
                torch.tensor([prompt]), max_new_tokens=NEW_TOKENS, do_sample=False
            )
        assert list(completion.tokens) == output[0, len(prompt) :].tolist()
