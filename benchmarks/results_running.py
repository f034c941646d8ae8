"""The sections of docs/results.md on what runs take: teachers, engines, grading; each a
function of its JSON that returns a title and lines."""

from results_text import mib_as_gib, number, percent, table


def teacher(result: dict) -> list[str]:
    """A real vLLM on the same cores."""
    orders = {row["order"]: row for row in result["orders"]}
    ours, plain = orders["ours"], orders["rollout"]
    better = "faster" if plain["seconds"] < ours["seconds"] else "slower"
    return [
        "A teacher behind vLLM",
        f"SmolLM2 and vLLM on the same cores. {ours['questions']} questions on steps, "
        "with a small cache: the share of their tokens found in it, by order.",
        "",
        *table(
            ("order", "found in the cache", "seconds"),
            [
                (row["order"], percent(row["hit_rate"]), f"{row['seconds']:.1f}")
                for row in result["orders"]
            ],
        ),
        f"Our order finds no more than the plain one of the rollouts "
        f"({percent(ours['hit_rate'])} and {percent(plain['hit_rate'])}), which was "
        f"{better} ({plain['seconds']:.1f} and {ours['seconds']:.1f} s).",
        "",
        *table(
            ("a batch scored", "seconds", "waited for the teacher", "equal verdicts"),
            [
                (
                    f"{row['scoring']} sampling",
                    f"{row['seconds_collect']:.1f}",
                    f"{row['seconds_teacher_waited']:.1f} s",
                    percent(row["equal_verdicts"]),
                )
                for row in result["overlap"]
            ],
        ),
        *table(
            ("`async_batches`", "steps an hour", "importance weight"),
            [
                (
                    row["async_batches"],
                    f"{row['steps_an_hour']:.0f}",
                    f"{row['importance_weight']:.4f}",
                )
                for row in result["async"]
            ],
        ),
        *client(result),
    ]


def client(result: dict) -> list[str]:
    """Our requests beside the openai package's, and a server that hangs."""
    if "throughput" not in result or "stopped" not in result:
        return []
    most = max(row["most_at_once"] for row in result["throughput"])
    timeout_s = result["stopped"][0]["timeout_s"]
    return [
        f"The same requests, {most} at once, to a server that waits before it answers:",
        "",
        *table(
            ("client", "requests/s", "CPU time of a request", "at once, mean"),
            [
                (
                    row["client"],
                    f"{row['requests_per_second']:.0f}",
                    f"{row['client_cpu_ms']:.2f} ms",
                    f"{row['mean_at_once']:.0f}",
                )
                for row in result["throughput"]
            ],
        ),
        f"A batch where a server hangs; a request times out after {timeout_s:.0f} s:",
        "",
        *table(
            ("servers", "seconds"),
            [(row["servers"], f"{row['seconds']:.1f}") for row in result["stopped"]],
        ),
    ]


def search(result: dict) -> list[str]:
    """Training a search agent, its update, and BM25."""
    sides = result["update"]
    return [
        "Search agents",
        "The search quickstart while it collects, and where that time goes; an update "
        "of SmolLM2-135M on conversations; BM25, one question at a time.",
        "",
        *table(
            ("engine", "turns/s", "tokens/s", "collecting", "learning", "search",
             "teacher", "sampler"),
            [
                (
                    row["engine"], row["turns_per_s"], row["tokens_per_s"],
                    f"{row['seconds_collect']} s", f"{row['seconds_update']} s",
                    *(
                        percent(row[f"share_{x}"])
                        for x in ("search", "teacher", "sampler")
                    ),
                )
                for row in result["loop"]
            ],
        ),
        *table(
            ("prompts stored", "seconds", "temporaries", "peak resident"),
            [
                (
                    name, f"{sides[side]['seconds']:.1f}",
                    f"{sides[side]['temporaries_mib']:.0f} MiB",
                    mib_as_gib(sides[side]["rss_mib"]),
                )
                for name, side in (
                    ("once a group", "shared"), ("once a conversation", "unshared")
                )
            ],
        ),
        *table(
            ("passages", "index", "ready after", "median", "99 % under", "resident"),
            [
                (
                    f"{row['passages']:,}", row["index"],
                    f"{row['seconds_ready']:.1f} s", f"{row['ms_median']:.1f} ms",
                    f"{row['ms_p99']:.1f} ms", f"{row['rss_mib']:.0f} MiB",
                )
                for row in result["retrieval"]
            ],
        ),
    ]  # fmt: skip


def grading(result: dict) -> list[str]:
    """Answers judged."""
    return [
        "Grading",
        f"Answers judged a second; {result['processes_left']} processes were left.",
        "",
        *table(
            ("", "answers", "a second", "workers", "a worker"),
            [
                (
                    row["what"], f"{row['items']:,}", number(row["items_per_s"]),
                    row["workers"], f"{row['mib']} MiB",
                )
                for row in result["rows"]
            ],
        ),
    ]  # fmt: skip


def steady_state(result: dict) -> list[str]:
    """A long run."""
    early, late, most = (
        mib_as_gib(result[f"rss_mib_{x}"])
        for x in ("early", "late", "peak_after_warm_up")
    )
    return [
        "A long run",
        f"{result['steps']} steps of the quickstart: "
        f"{result['seconds_a_step_early']:.2f} s a step at the start, "
        f"{result['seconds_a_step_late']:.2f} s at the end; resident memory {early} to "
        f"{late}, never above {most}; {result['compiles_at_end']} programs compiled, "
        f"{result['compiles_at_warm_up']} of them in the first 20 steps.",
        "",
    ]


def theory(result: dict) -> list[str]:
    """Where the theory stands."""
    rows = [row for row in result["variance"] if 1 <= row["threshold"] <= 9]
    cases = sum(row["problems"] for row in rows)
    holds = round(sum(row["problems"] * row["eq. 8 holds"] for row in rows))
    return [
        "The paper's theory",
        f"{rows[0]['problems']} problems that can be enumerated: eq. 8 holds in "
        f"{holds} of {cases} cases at thresholds 1 to 9; all statements: "
        "[theory.md](theory.md).",
        "",
    ]


RUNNING = {
    "teacher": teacher,
    "search": search,
    "grading": grading,
    "steady_state": steady_state,
    "theory": theory,
}
