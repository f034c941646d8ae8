"""The sections of docs/results.md on time and memory, beside others and by size; each a
function of its JSON that returns a title and lines."""

from results_text import gib, mib_as_gib, number, percent, table


def peers(title: str, told: str):
    """A section on ours beside others'."""

    def section(result: dict) -> list[str]:
        return [
            title,
            told,
            "",
            *table(
                ("work", "peer", "", "ours", "theirs", "ours / theirs", "our aim",
                 "share of the machine's limit"),
                [peer_row(row) for row in result["rows"]],
            ),
            *heavier(result["rows"]),
        ]  # fmt: skip

    return section


def heavier(rows: list[dict]) -> list[str]:
    """Where ours takes more memory."""
    found = [
        f"{row['work']} {number(row['ours'])} MiB against {row['peer']}'s "
        f"{number(row['theirs'])} MiB"
        for row in rows
        if row["unit"].startswith("MiB") and row["ratio"] > 1
    ]
    return [f"Ours takes more memory: {'; '.join(found)}.", ""] if found else []


def peer_row(row: dict) -> tuple:
    """One comparison; an aim that was missed says so."""
    aim = row["target"] or ""
    if aim.endswith("x"):
        sign, bound = aim.split()
        ratio, bound = row["ratio"], float(bound[:-1])
        met = ratio >= bound if sign == ">=" else ratio <= bound
        aim += "" if met else ": missed"
    share = row["limit_share"]
    return (
        row["work"], row["peer"], row["unit"], number(row["ours"]),
        number(row["theirs"]), f"{row['ratio']:.2f}", aim,
        percent(share) if share else "",
    )  # fmt: skip


def matmul(result: dict) -> list[str]:
    """Products of few rows."""
    return [
        "What a step of decoding could take",
        "The products of a step of SmolLM2-135M, float32, each in the fastest of five "
        "forms, in the form that we use, and at the speed of memory.",
        "",
        *table(
            ("rows", "fastest form", "ours", "memory alone", "tokens/s at most"),
            [
                (
                    row["rows"],
                    *(f"{row[f'{x}_ms']} ms" for x in ("best", "ours", "memory")),
                    row["best_tokens_s"],
                )
                for row in result["steps"]
            ],
        ),
    ]


def scaling(result: dict) -> list[str]:
    """An update by samples, lengths, vocabulary."""
    rows = [
        (
            axis,
            f"{row['value']:,}",
            *(
                f"{row[f'{form}_s']:.2f} s, {row[f'{form}_mib']:.0f} MiB"
                for form in ("packed", "rows")
            ),
        )
        for axis, points in result["points"].items()
        for row in points
    ]
    return [
        "An update by samples, lengths and vocabulary",
        f"{result['layers']} layers of {result['model'].split('/')[-1]}; one quantity "
        "is changed at a time. Seconds and temporaries with completions packed behind "
        "one prompt, as in training, and as rows that repeat the prompt.",
        "",
        *table(("quantity", "value", "packed", "rows"), rows),
        "![Scaling](../benchmarks/results/scaling.png)",
        "",
    ]


def memory(result: dict) -> list[str]:
    """Real updates of OVD and of token-level distillation."""
    return [
        "Memory: token-level distillation beside OVD",
        f"{len(result['points'])} points that the compiler placed, and what they mean: "
        "[memory.md](memory.md). Updates at SmolLM2-135M's size that were run:",
        "",
        *table(
            ("", "seconds", "temporaries", "peak resident"),
            [
                (
                    row["method"],
                    f"{row['seconds']:.1f}",
                    f"{row['temporaries_mib']:.0f} MiB",
                    mib_as_gib(row["rss_mib"]),
                )
                for row in result["real"]
            ],
        ),
    ]


def portability(result: dict) -> list[str]:
    """What devices that are not here would hold."""
    config = result["config"]
    rows = {}
    for row in result["rows"]:
        point = (row["model"], row["devices"], tuple(row["mesh"]), row["lora"])
        best = rows.setdefault(point, row)
        if row["needs"] > best["needs"]:
            rows[point] = row
    return [
        "Devices that are not here",
        "The update and the sampler, lowered for CPU, CUDA, ROCm and TPU, and placed "
        f"by the compiler, not run: {config['samples']} completions of "
        f"{config['completion']} behind a prompt of {config['prompt']}. The most that "
        "one device holds in any program, in GiB:",
        "",
        *table(
            ("model", "devices", "fsdp, tp", "LoRA", "needs", "has", "program"),
            [
                (
                    row["model"].split("/")[-1],
                    row["devices"],
                    f"{row['mesh'][1]}, {row['mesh'][2]}",
                    row["lora"] or "",
                    gib(row["needs"])
                    + ("" if row["fits"] is not False else ": too much"),
                    gib(row["there"]) if row["there"] else "",
                    row["program"],
                )
                for row in rows.values()
            ],
        ),
    ]


COSTS = {
    "update": peers(
        "An update beside Tunix and TRL",
        "SmolLM2-135M's shape, random weights, float32, AdamW; peers at their best "
        "setting. `full`: a group of 8, prompt 64, completions 192. `ragged`: four "
        "groups with completions of all lengths up to 256. `search`: two groups, "
        "prompts of 1024, completions of about 64.",
    ),
    "sampler": peers(
        "Sampling beside Tunix",
        "SmolLM2-135M's shape, random weights, float32. `greedy` and `top_p`: 8 "
        "prompts of 32 tokens, 64 new ones. `group`: 4 prompts of 256 tokens with 8 "
        "samples each, ragged.",
    ),
    "matmul": matmul,
    "scaling": scaling,
    "memory": memory,
    "portability": portability,
}
