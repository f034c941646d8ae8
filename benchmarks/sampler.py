"""Sampling beside Tunix: tokens a second.

    python benchmarks/sampler.py
    python benchmarks/sampler.py --config.works="('greedy',)"

SmolLM2-135M's shape, random weights, float32; the same prompts, log-probabilities
returned by both. Ours is run before and after Tunix and counts with its slower, for
what else the machine does changes. The first run makes Tunix's virtual environment in
the user's cache. Writes benchmarks/results/sampler.json.
"""

import time

import comparison
import record

from ovd_jax.cli import flags
from ovd_jax.models.known import KNOWN

MODEL = KNOWN["HuggingFaceTB/SmolLM2-135M-Instruct"]
PLAIN = {
    "prompts": 8, "samples": 1, "prompt": 32, "new_tokens": 64,
    "temperature": 0.0, "top_p": 1.0, "stop_ids": [], "target": 2.0,
}  # fmt: skip
WORKS = {
    "greedy": PLAIN,
    "sampled": PLAIN | {"temperature": 1.0},
    "top_p": PLAIN | {"temperature": 1.0, "top_p": 0.95},
    # Random weights stop nowhere: every 58th token does, so that lengths are ragged
    # with a mean of 0.4 of the longest.
    "group": PLAIN | {
        "prompts": 4, "samples": 8, "prompt": 256, "new_tokens": 128,
        "temperature": 1.0, "stop_ids": list(range(7, MODEL.vocab_size, 58)),
        "target": 3.0,
    },
}  # fmt: skip


def main(config, output):
    """Runs both sides of each work in turn."""
    started = time.time()
    machine = comparison.limits()
    rows = []
    for name in config.works:
        work = WORKS[name] | {"name": name, "repeats": config.repeats}
        before = comparison.run_side("ours_sampler", work)
        theirs = comparison.run_side("tunix_sampler", work)
        after = comparison.run_side("ours_sampler", work)
        ours = min(before, after, key=lambda side: side["tokens_per_s"])
        rows.append(
            comparison.row(
                name, "tunix", "tokens/s", ours["tokens_per_s"], theirs["tokens_per_s"],
                target=f">= {work['target']}x",
                limit=ours["tokens"] / least_seconds(work, ours["tokens"], machine),
            )
        )  # fmt: skip
        rows.append(
            comparison.row(name, "tunix", "MiB rss", ours["rss_mib"], theirs["rss_mib"])
        )
    result = comparison.publish(output, "Sampling", rows, machine)
    flags.summary(**result, seconds=round(time.time() - started, 1))


def least_seconds(work: dict, tokens: float, machine: dict) -> float:
    """At the machine's limits: each prompt's matmuls once; then, of reading the weights
    once a token of the longest row and computing every token's matmuls, what takes
    longer. Caches are left out."""
    c = MODEL
    heads = (2 * c.num_heads + 2 * c.num_kv_heads) * c.head_dim
    layers = c.num_layers * c.width * (heads + 3 * c.mlp_width)
    head = c.width * c.vocab_size
    flop_s, byte_s = machine["matmul_gflop_s"] * 1e9, machine["read_gb_s"] * 1e9
    prefill_s = 2 * layers * work["prompts"] * work["prompt"] / flop_s
    read_s = 4 * (layers + head) * work["new_tokens"] / byte_s
    compute_s = 2 * (layers + head) * tokens / flop_s
    return prefill_s + max(read_s, compute_s)


if __name__ == "__main__":
    record.run(main, doc=__doc__, default="benchmarks/configs/sampler.py")
