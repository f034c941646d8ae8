"""The paper's arithmetic of token-level distillation (eq. 1, Table 1, Figures 1 and 2).

For any model; what the devices really hold is measured by benchmarks/memory.py.
"""

from ovd_jax.models.transformer import TransformerConfig

F32, BF16 = 4, 2  # bytes
ID = 4  # bytes of a token's number
GB, GIB = 10**9, 2**30


def logits_bytes(config: TransformerConfig, length: int, itemsize: int) -> int:
    """Of the logits of one trajectory."""
    return length * config.vocab_size * itemsize


def cache_bytes(config: TransformerConfig, length: int) -> int:
    """Of the keys and values of one layer for one trajectory, bfloat16."""
    return 2 * config.num_kv_heads * length * config.head_dim * BF16


def eq_1(config: TransformerConfig, length: int, samples: int, batch: int = 1) -> int:
    """Bytes of the logits of all trajectories in float32 and bfloat16."""
    return batch * samples * logits_bytes(config, length, F32 + BF16)


def sized(bytes_: int) -> dict:
    """A quantity of memory in both units that it is told in."""
    return {"bytes": bytes_, "GB": bytes_ / GB, "GiB": bytes_ / GIB}


def table_1(config: TransformerConfig, length: int) -> list[dict]:
    """Table 1: one trajectory's logits and cache."""
    c = config
    cache = cache_bytes(c, length)
    heads = f"2 x {c.num_kv_heads} x {length} x {c.head_dim}"
    logits = f"{length} x {c.vocab_size}"
    rows = (
        ("logits, float32", logits, logits_bytes(c, length, F32)),
        ("logits, bfloat16", logits, logits_bytes(c, length, BF16)),
        ("cache of a layer, bfloat16", heads, cache),
        ("cache, bfloat16", f"{c.num_layers} x {heads}", c.num_layers * cache),
    )  # fmt: skip
    return [{"component": a, "shape": b} | sized(found) for a, b, found in rows]


def figure(config: TransformerConfig, points: list[tuple[int, int]]) -> list[dict]:
    """Figures 1 and 2: logits (eq. 1) and cache at each (length, samples)."""
    rows = []
    for length, samples in points:
        logits = eq_1(config, length, samples)
        cache = samples * config.num_layers * cache_bytes(config, length)
        rows.append(
            {"length": length, "samples": samples}
            | {f"logits {unit}": value for unit, value in sized(logits).items()}
            | {f"cache {unit}": value for unit, value in sized(cache).items()}
            | {"logits / cache": logits / cache}
        )
    return rows


def transfers(
    config: TransformerConfig,
    length: int,
    *,
    steps: int,
    levels: int,
    k: int,
    bytes_per_token: float,
) -> list[dict]:
    """What one trajectory costs a network between student and teacher, as plain binary
    numbers and text: it goes out in every case, and what comes back is said.

    OVD's last row has the demonstration that replaces a rejected one, as long.
    """
    ids, text = length * ID, round(length * bytes_per_token)
    scores = steps * levels * F32
    rows = (
        ("logits, float32", ids, logits_bytes(config, length, F32)),
        ("logits, bfloat16", ids, logits_bytes(config, length, BF16)),
        (f"top {k}: ids and log-probabilities", ids, length * k * (ID + F32)),
        ("log-probability of each sampled token", ids, length * F32),
        (f"OVD: distributions over {levels} scores of {steps} steps", text, scores),
        ("OVD: and a demonstration", text, scores + text),
    )
    return [
        {"what comes back": name, "out": out, "back": back, "MB": (out + back) / 1e6}
        for name, out, back in rows
    ]


def reductions(config: TransformerConfig, length: int, *, steps: int, levels: int):
    """The factor by which scores are fewer numbers than logits: L V / (K v), and the
    paper's N V / v for N = 32 as it stands."""
    return {
        "L V / (K v)": length * config.vocab_size / (steps * levels),
        "N V / v, N = 32": 32 * config.vocab_size / levels,
    }
