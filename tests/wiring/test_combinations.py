"""Knobs that do nothing together are refused before anything is loaded."""

import pytest

from ovd_jax import evaluate, sft, train
from ovd_jax.cli import flags
from ovd_jax.cli.config_files import ROOT
from ovd_jax.errors import UserError
from ovd_jax.wiring.combinations import (
    CHECKS,
    check_evaluation,
    check_training,
    check_tuning,
)

SEARCHES = {"task": "qa", "turns.max_observations": 2, "search.backend": "bm25"}


def make_config(name="quickstart", **changes):
    config = flags.load_file(f"configs/{name}.py").copy_and_resolve_references()
    if name == "quickstart":
        config.update(samples=2, problems_per_step=64)
    config.update_from_flattened_dict(changes)
    return config


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"samples": 1, "baseline": "after"}, "samples 1 with baseline after compares"),
        ({"samples": 1, "baseline": "leave_one_out"}, "with itself, so that nothing"),
        ({"samples": 1, "method": "grpo"}, "samples to 2 or more."),
        ({"samples": 1, "threshold": 0}, "samples 1 with baseline union"),
        ({"samples": 1, "demonstration_tries": 0}, "samples 1"),
        ({"temperature": 0.0, "method": "grpo"}, "temperature 0 makes the 2 samples"),
        ({"temperature": 0.0, "threshold": 0}, "temperature 0"),
        ({"demonstration_tries": 0}, "demonstration_tries 0 replaces nothing"),
        ({"replacement": "step", "max_replaced_steps": 0}, "max_replaced_steps 0 repl"),
        ({"method": "dpo_pairs", "threshold": 0}, "dpo_pairs learns from trajectories"),
        ({"method": "dpo_pairs", "demonstration_tries": 0}, "dpo_pairs learns from"),
        ({"collapse.window": 5}, "no bound is set that would stop a run"),
        ({"problems_per_step": 3}, "3 problems a step cannot be cut into 4 minibatch"),
        ({"reference_every": 3, "kl_coef": 0.0}, "reference_every 3, but nothing ref"),
        ({"reference_every": 3, "method": "seq_kd"}, "nothing refers to it"),
        ({"eval_samples": 4}, "4 greedy samples of a problem are all the same"),
        ({"turns.max_observations": 2}, "task is arithmetic: set it to 0"),
        ({"task": "qa", "turns.max_observations": 2}, "backend is none: name an eng"),
        (SEARCHES, "search.backend bm25 needs search.corpus"),
        (SEARCHES | {"search.backend": "http"}, "http needs search.url"),
        (SEARCHES | {"search.corpus": "world", "method": "seq_kd"},
         "written in a single turn"),
        ({"method": "seq_kd", "refills": 1}, "refills 1 is for groups"),
        ({"granularity": "trajectory", "credit": "step"}, "needs the scores of steps"),
        ({"distill.beta": 1.0, "distill.divergence": "jsd", "method": "token_kd"},
         "distill.beta 1.0 is not between"),
        ({"lora.rank": 4, "lora.targets": ()}, "lora.targets is empty"),
        ({"feedback": "keep"}, "feedback 'keep' needs a teacher.prompt that asks"),
        ({"task": "qa", "qa.prompt": "serch"}, "qa.prompt 'serch' is neither"),
        ({"teacher.prompt": "digit"}, "teacher.prompt 'digit' is neither"),
        ({"teacher.prompt": "no/prompt.json"}, "'no/prompt.json' is neither"),
        ({"data": "no/rows.jsonl"}, "data names 'no/rows.jsonl', which is not there"),
        ({"data": "README.md,no/b.csv"}, "data names 'no/b.csv'"),
        ({"held_out_data": "/no/rows"}, "held_out_data names '/no/rows'"),
        ({"search.corpus": "./corpus"}, "search.corpus names './corpus'"),
        ({"model": "../no/model"}, "model names '../no/model'"),
        ({"teacher.model": "/no/model"}, "teacher.model names"),
    ],
)  # fmt: skip
def test_what_could_not_work_or_would_do_nothing_is_refused(tmp_path, changes, said):
    config = make_config(run_dir=str(tmp_path / "run"), **changes)
    with pytest.raises(UserError) as error:
        train.main(config)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"samples": 1},  # compared with what it replaced
        {"samples": 1, "baseline": "before"},
        {"samples": 1, "credit": "step", "baseline": "after"},
        {"samples": 1, "method": "seq_kd", "baseline": "after"},
        {"samples": 1, "method": "rejection_ft"},
        {"temperature": 0.0, "method": "on_policy_kd"},
        {"demonstration_tries": 0, "credit": "hybrid"},
        {"threshold": 0},
        {"threshold": 0, "rejection": "score_or_incorrect"},
        {"method": "dpo_pairs", "samples": 1},
        {"collapse.window": 5, "collapse.short": 3.0},
        {"eval_samples": 4, "eval_problems": 0},
        {"eval_samples": 4, "eval_temperature": 1.0},
        {"reference_every": 3},
        {"reference_every": 3, "method": "dpo_pairs"},
        {"method": "grpo", "teacher.prompt": "nobody reads it"},
        {"data": "openai/gsm8k:main", "model": "Qwen/Qwen2.5-1.5B"},
    ],
)
def test_what_does_something_is_not_refused(changes):
    check_training(make_config(**changes))


def test_shipped_configs_are_not_refused():
    names = [path.stem for path in (ROOT / "configs").glob("[a-z]*.py")]
    tuned, trained = [], []
    for name in names:
        config = flags.load_file(f"configs/{name}.py")
        if "method" in config and not name.startswith(("eval_", "teacher_audit")):
            if "smollm2_search" not in name:  # whose files the user names
                check_training(config)
            trained.append(name)
        elif "batch_size" in config and name != "simulator_sft":
            check_tuning(config)
            tuned.append(name)
    assert len(trained) > 15
    assert len(tuned) > 4
    for method in ("direct", "cot", "rag", "ra_agent", "search_o1", "search"):
        config = flags.load_file(f"configs/eval_qa.py:{method}")
        with config.unlocked():
            config.search.corpus = "world"
        check_evaluation(config)
    for name in ("eval_math", "teacher_audit", "quickstart"):
        check_evaluation(flags.load_file(f"configs/{name}.py"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"test_threshold": 5, "test_replaced_steps": 0}, "replaces nothing"),
        (
            {"test_threshold": 1, "teacher.prompt": "one_to_ten"},
            "test_threshold 1 accepts all labels",
        ),
        ({"test_threshold": 11, "teacher.prompt": "digits"}, "11 is too high"),
        ({"test_threshold": -1, "teacher.prompt": "digits"}, "-1 is below"),
        ({"test_threshold": 5, "teacher.prompt": "digit"}, "is neither a JSON file"),
        ({"evaluate": "teacher", "teacher.prompt": "digit"}, "is neither a JSON file"),
        ({"data": "no/rows.jsonl"}, "data names"),
        ({"turns.max_observations": 1}, "only the task qa has searches"),
    ],
)
def test_an_evaluation_is_looked_at_too(tmp_path, changes, said):
    with pytest.raises(UserError, match=said):
        evaluate.main(make_config(run_dir=str(tmp_path), **changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": "no/rows.jsonl"}, "data names 'no/rows.jsonl'"),
        ({"model": "./no/model"}, "model names"),
        ({"lora.rank": 2, "lora.targets": ()}, "lora.targets is empty"),
    ],
)
def test_a_fine_tuning_is_looked_at_too(tmp_path, changes, said):
    with pytest.raises(UserError, match=said):
        sft.main(make_config("sft", run_dir=str(tmp_path), **changes))


def test_both_programs_of_a_comparison_are_looked_at():
    assert CHECKS.keys() == {"train", "evaluate"}


@pytest.mark.parametrize("noise", [(), (0.5,), (0.0, 0.2, 0.5)])
def test_a_schedule_of_noise_has_a_begin_and_an_end(noise, tmp_path):
    for check, base in ((train, "quickstart_search"), (evaluate, "quickstart")):
        config = flags.load_file(f"configs/{base}.py")
        config.run_dir, config.search.noise = str(tmp_path / "run"), noise
        with pytest.raises(UserError, match=r"search.noise is \(.*has two shares"):
            check.main(config)
