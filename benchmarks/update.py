"""A GRPO update beside those of Tunix and TRL: time, temporaries, peak memory.

    python benchmarks/update.py
    python benchmarks/update.py --config.works="('full',)" --config.peers="('tunix',)"

SmolLM2-135M's shape, random weights, float32, AdamW; the same groups on both sides. A
peer is run at several settings and counts with its best. Ours is run before and after
the peers and counts with its slower, for what else the machine does changes. The first
run makes a virtual environment for each peer in the user's cache. Writes
benchmarks/results/update.json.
"""

import time

import comparison
import numpy as np
import record

from ovd_jax.cli import flags
from ovd_jax.models.known import KNOWN

MODEL = KNOWN["HuggingFaceTB/SmolLM2-135M-Instruct"]
GROUP = 8  # completions a prompt
OURS = {"remat": "full", "chunk": 256}


def lognormal(groups: int, mean: float, longest: int) -> list[list[int]]:
    """Seeded completion lengths as in practice: of this mean before they are cut."""
    sigma = 0.6
    rng = np.random.default_rng(0)
    drawn = rng.lognormal(np.log(mean) - sigma**2 / 2, sigma, (groups, GROUP))
    return np.clip(drawn.round(), 8, longest).astype(int).tolist()


WORKS = {
    # One group, all completions of full length.
    "full": {
        "prompt": 64, "lengths": [[192] * GROUP], "max_completion": 192,
        "ours": OURS | {"length_multiple": 64, "microbatch_tokens": 832},
        "tunix": (("NONE", 8), ("DECODER", 8)), "target": 0.85,
    },
    # Completion lengths as in practice.
    "ragged": {
        "prompt": 64, "lengths": lognormal(4, 0.45 * 256, 256), "max_completion": 256,
        "ours": OURS | {"length_multiple": 64, "microbatch_tokens": 1088},
        "tunix": (("NONE", 8),), "target": 0.5,
    },
    # A long prompt and short answers, as with search.
    "search": {
        "prompt": 1024, "lengths": lognormal(2, 64, 128), "max_completion": 128,
        "ours": OURS | {"length_multiple": 64, "microbatch_tokens": 1792},
        "tunix": (("DECODER", 2),), "target": 0.25,
    },
}  # fmt: skip
MIB_TARGETS = {"temporaries_mib": 445, "rss_mib": 4096}


def main(config, output):
    """Runs the sides of each work in turn."""
    started = time.time()
    machine = comparison.limits()
    rows = []
    for name in config.works:
        work = WORKS[name] | {"name": name, "repeats": config.repeats}
        own_work = work | work["ours"]
        before = comparison.run_side("ours_update", own_work)
        peers = [x for x in config.peers if (x, name) != ("trl", "search")]
        theirs = {
            peer: [
                comparison.run_side(f"{peer}_update", work | setting)
                for setting in settings(peer, work)
            ]
            for peer in peers
        }
        after = comparison.run_side("ours_update", own_work)
        ours = max(before, after, key=lambda side: side["seconds"])
        for peer in peers:
            rows += compare(work, peer, ours, theirs[peer], machine)
    result = comparison.publish(output, "A GRPO update", rows, machine)
    flags.summary(**result, seconds=round(time.time() - started, 1))


def settings(peer: str, work: dict) -> list[dict]:
    """What a peer is tried at."""
    if peer == "tunix":
        return [{"remat": remat, "rows": rows} for remat, rows in work["tunix"]]
    return [{"checkpointing": False}, {"checkpointing": True}]


def compare(work, peer, ours, theirs, machine) -> list[dict]:
    """The rows of one work beside one peer; each quantity against the peer's best."""
    name = work["name"]
    least_s = flops(work) / machine["matmul_gflop_s"] / 1e9
    target = work["target"] if peer == "tunix" else None
    result = [
        comparison.row(
            name, peer, "s", ours["seconds"], comparison.best(theirs, "seconds"),
            target=target and f"<= {target}x", limit=least_s,
        )
    ]  # fmt: skip
    for key, most in MIB_TARGETS.items():
        least = comparison.best(theirs, key)
        if least is not None:
            target = f"<= {most} MiB" if name == "full" and peer == "tunix" else None
            unit = f"MiB {key.removesuffix('_mib')}"
            result.append(
                comparison.row(name, peer, unit, ours[key], least, target=target)
            )
    return result


def flops(work: dict) -> float:
    """Those of the matmuls that an update cannot do without: each prompt once, the head
    over completions only, nothing computed twice; attention is left out."""
    c = MODEL
    heads = (2 * c.num_heads + 2 * c.num_kv_heads) * c.head_dim
    layer = c.width * (heads + 3 * c.mlp_width)
    completion = sum(map(sum, work["lengths"]))
    tokens = len(work["lengths"]) * work["prompt"] + completion
    head = c.width * c.vocab_size
    return 6.0 * (c.num_layers * layer * tokens + head * completion)


if __name__ == "__main__":
    record.run(main, doc=__doc__, default="benchmarks/configs/update.py")
