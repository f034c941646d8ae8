"""Every knob reaches the object that it is for, in the field that it is for."""

import pytest
from wired import VALUES, values_of

from ovd_jax.cli import flags
from ovd_jax.cli.knobs import knobs

# (knob, object below, field): somewhere in the object a field of that name has the
# knob's value.
FIELDS = [
    *[
        (name, "student_sampler", name)
        for name in ("max_new_tokens", "temperature", "top_k", "top_p", "min_rows",
                     "prompt_multiple", "stop_strings")
    ],
    *[
        (name, "held_out_sampler", name)
        for name in ("max_new_tokens", "top_k", "top_p", "stop_strings")
    ],
    ("eval_temperature", "held_out_sampler", "temperature"),
    *[
        (name, "rules", name)
        for name in ("granularity", "step_aggregation", "rejection", "threshold",
                     "beta", "replacement", "demonstration_tries", "only_correct",
                     "max_replaced_steps", "feedback", "credit", "samples",
                     "max_new_tokens")
    ],
    *[
        (name, "learner", name)
        for name in ("minibatches", "epochs", "aggregation", "chunk", "temperature")
    ],
    ("max_new_tokens", "learner", "max_tokens"),
    *[
        (name, "objective", name)
        for name in ("chunk", "remat", "temperature", "surrogate", "clip_low",
                     "clip_high", "kl_coef", "kl_estimator", "entropy_coef",
                     "imitation_coef", "importance_cap")
    ],
    ("distill.top_k", "token_kd", "k"),
    ("distill.vocabulary", "token_kd", "vocabulary"),
    ("distill.temperature", "token_kd", "temperature"),
    ("dpo_beta", "dpo_pairs", "beta"),
    *[
        (f"turns.{name}", "dialogue", name)
        for name in ("max_observations", "total_tokens", "observation_tokens",
                     "correction", "mask_invalid")
    ],
    *[
        (f"arithmetic.{name}", "arithmetic", name)
        for name in ("min_operations", "max_operations", "max_operand", "max_value")
    ],
    ("step_rule", "math", "step_rule"),
    ("math_tolerance", "math", "tolerance"),
    ("qa.reward", "qa", "reward"),
    ("search.max_chars", "qa", "max_chars"),
    *[
        (f"teacher.{name}", "served_teacher", field)
        for name, field in (
            ("score_rule", "rule"), ("score_temperature", "score_temperature"),
            ("temperature", "temperature"), ("max_new_tokens", "max_new_tokens"),
            ("on_failure", "on_failure"), ("retries", "retries"),
            ("timeout_s", "timeout_s"),
        )
    ],
    ("teacher.max_new_tokens", "local_teacher", "max_new_tokens"),
    ("teacher.temperature", "local_teacher", "temperature"),
    ("teacher.score_rule", "local_teacher", "rule"),
    ("teacher.score_temperature", "local_teacher", "temperature"),
    ("teacher.rows", "local_teacher", "rows"),
    ("min_rows", "local_teacher", "min_rows"),
    ("prompt_multiple", "local_teacher", "prompt_multiple"),
    ("search.topk", "http", "topk"),
    ("search.timeout_s", "http", "timeout_s"),
    ("search.on_failure", "http", "on_failure"),
    ("search.topk", "served_simulator", "topk"),
    ("search.retries", "served_simulator", "retries"),
    ("search.timeout_s", "served_simulator", "timeout_s"),
    ("search.temperature", "served_simulator", "temperature"),
    ("search.max_new_tokens", "served_simulator", "max_tokens"),
    ("search.temperature", "local_simulator", "temperature"),
    ("search.max_new_tokens", "local_simulator", "max_new_tokens"),
    ("min_rows", "local_simulator", "min_rows"),
    ("collapse.window", "watch", "window"),
    ("max_skipped", "watch", "max_skipped"),
    ("test_score_rule", "rejecting", "score_rule"),
    ("test_threshold", "rejecting", "threshold"),
    ("test_replaced_steps", "rejecting", "max_replaced_steps"),
    ("max_new_tokens", "rejecting", "max_new_tokens"),
    ("eval_rows", "rejecting", "rows"),
    ("eval_rows", "direct", "rows"),
]  # fmt: skip


def test_no_value_of_the_table_is_a_default():
    default = knobs(flags.load_file("configs/default.py"))
    assert [knob for knob, value in VALUES.items() if default[knob][1] == value] == []


@pytest.mark.parametrize(("knob", "name", "field"), FIELDS)
def test_a_field_has_its_knobs_value(knob, name, field, made):
    found = values_of(made(name), field)
    assert VALUES[knob] in found, found
    foreign = {
        other
        for other, value in VALUES.items()
        if other.rpartition(".")[2] == knob.rpartition(".")[2]
        and other != knob
        and value in found
    }
    assert not foreign
