"""The words that a knob may be, beside `ranges.py` for its numbers.

An unknown word would otherwise fail only where it is used: after the models are loaded,
or, for `export_dtype`, after the last step. Host modules check their own words as well,
for callers without a config; a test holds both tables together.
"""

import difflib
from collections.abc import Mapping

from ovd_jax.own_code import names_code

CHOICES = {  # knob: the words it may be, or each of its words if it is a tuple
    "method": (
        "ovd", "grpo", "seq_kd", "rejection_ft", "token_kd", "on_policy_kd",
        "dpo_pairs",
    ),
    "loggers": ("tensorboard", "wandb", "trackio"),
    "task": ("arithmetic", "math", "qa"),
    "env": ("search", "calculator"),
    "prompt_template": ("chat", "plain", "qwen_boxed"),
    "qa.reward": ("f1", "em"),
    "step_rule": ("lines", "blank_lines", "sentences", "step_n", "tags"),
    "compute_dtype": ("float32", "bfloat16"),
    "attention": ("auto", "blocked"),
    "lora.targets": ("q", "k", "v", "o", "gate", "up", "down"),
    "teacher.score_rule": ("sample", "argmax", "expected"),
    "teacher.on_failure": ("wait", "accept", "drop", "fail"),
    "search.backend": ("none", "bm25", "http", "simulated"),
    "search.on_failure": ("wait", "empty", "fail"),
    "granularity": ("trajectory", "step", "hybrid"),
    "step_aggregation": ("min", "mean", "last"),
    "rejection": ("score", "score_or_incorrect", "soft"),
    "replacement": ("trajectory", "suffix", "step"),
    "feedback": ("none", "keep", "revise"),
    "credit": ("trajectory", "step", "hybrid"),
    "baseline": ("after", "before", "union", "leave_one_out"),
    "distill.solutions": ("teacher", "data"),
    "distill.divergence": ("forward_kl", "reverse_kl", "jsd", "policy_gradient"),
    "distill.vocabulary": ("chunked", "dense", "top_k"),
    "aggregation": ("grpo", "dapo", "dr_grpo"),
    "surrogate": ("clip", "gspo", "cispo"),
    "kl_estimator": ("k1", "k2", "k3"),
    "optimizer.schedule": ("constant", "linear", "cosine"),
    "remat": ("none", "matmuls", "full"),
    "evaluate": ("student", "teacher"),
    "test_score_rule": ("sample", "argmax", "expected"),
    "export_dtype": ("bfloat16", "float16", "float32"),
    "dtype": ("bfloat16", "float16", "float32"),
}  # fmt: skip
OWN = (
    "task",
    "env",
    "method",
    "search.backend",
)  # also path/to/file.py:Name of one's own
OF_SFT = {"task": ("arithmetic", "world")}  # whose task is what makes examples


def not_a_choice(values: Mapping[str, object]) -> str:
    """The message for the first knob that is not one of CHOICES; empty if all are."""
    of_sft = "batch_size" in values
    choices = CHOICES | (OF_SFT if of_sft else {})
    for knob, value in values.items():
        if knob in OWN and names_code(value) and not of_sft:
            continue
        words = value if isinstance(value, tuple) else (value,)
        for word in words if knob in choices else ():
            if isinstance(word, str) and word not in choices[knob]:
                return f"{knob} is {word!r}; {choose(word, choices[knob])}"
    return ""


def choose(word: str, words: tuple[str, ...]) -> str:
    """Asks for one of `words`, the one that `word` is most like first."""
    close = difflib.get_close_matches(word.lower(), words, n=1)
    meant = f" Did you mean {close[0]}?" if close else ""
    return f"use one of {', '.join(words)}.{meant}"
