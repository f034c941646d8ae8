"""The ranges of numeric knobs.

Out of range, some would fail late with an unclear message, such as a division by zero
for no samples. Others would not fail: with a negative learning rate a run unlearns.
"""

from collections.abc import Mapping

# Knobs by the interval that their numbers are in. Those that no interval has may be any
# number, or are looked at where they are used, beside others.
INTERVALS = {
    "[1, inf)": (
        "problems_per_step", "samples", "max_prompt_tokens", "max_new_tokens",
        "min_rows", "prompt_multiple", "length_multiple", "microbatch_tokens", "chunk",
        "minibatches", "epochs", "max_skipped", "eval_samples", "eval_rows",
        "arithmetic.min_operations", "arithmetic.max_operations",
        "arithmetic.max_operand", "arithmetic.max_value",
        "turns.total_tokens", "turns.observation_tokens",
        "teacher.max_new_tokens", "teacher.rows", "teacher.max_concurrency",
        "search.max_new_tokens", "search.max_concurrency", "search.max_chars",
        "search.topk", "distill.top_k", "distributed.processes",
        "batch_size", "max_tokens", "sort_window", "log_every", "repeats",
    ),
    "[0, inf)": (
        "num_steps", "checkpoint_every", "eval_every", "eval_problems",
        "temperature", "eval_temperature", "eval_sampled_temperature", "top_k",
        "teacher.score_temperature", "teacher.temperature", "teacher.retries",
        "search.temperature", "search.retries", "turns.max_observations", "lora.rank",
        "demonstration_tries", "max_replaced_steps",
        "test_replaced_steps", "refills", "reference_every", "clip_high", "kl_coef",
        "imitation_coef", "importance_cap", "collapse.window", "collapse.entropy",
        "collapse.short", "optimizer.learning_rate", "optimizer.warmup_steps",
        "optimizer.weight_decay", "distributed.process",
    ),
    "(-inf, inf)": ("threshold", "test_threshold"),  # scales may begin below 0
    "(0, inf)": (
        "beta", "dpo_beta", "lora.alpha", "distill.temperature", "teacher.timeout_s",
        "search.timeout_s", "timeout_s",
    ),
    "(0, inf]": ("optimizer.grad_clip",),
    "[0, 1]": (
        "clip_low", "credit_weight", "search.noise", "collapse.zero_spread",
        "collapse.invalid_rate", "collapse.truncated", "judged_share",
        "world.simulated_share", "world.hasty_share", "held_out_share", "told_share",
    ),
    "[0, 1)": ("optimizer.b1", "optimizer.b2", "math_tolerance"),
    "(0, 1]": ("top_p",),
}  # fmt: skip
RANGES = {knob: interval for interval, names in INTERVALS.items() for knob in names}


def is_in(value: float, interval: str) -> bool:
    """True if a number is in an interval such as `[0, 1)`; nan is in none."""
    low, high = map(float, interval[1:-1].split(","))
    above = low <= value if interval[0] == "[" else low < value
    return above and (value <= high if interval[-1] == "]" else value < high)


def out_of_range(values: Mapping[str, object]) -> str:
    """The message for the first knob with a number out of its range; empty if there is
    none."""
    for knob, value in values.items():
        numbers = value if isinstance(value, tuple) else (value,)
        for number in numbers if knob in RANGES else ():
            known = isinstance(number, int | float)
            if known and not is_in(number, RANGES[knob]):
                return f"{knob} is {value}; it must be in {RANGES[knob]}."
    return ""
