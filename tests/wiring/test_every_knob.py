"""Each knob of configs/default.py is asserted somewhere: in the table of
test_wiring.py, or by the test that is named here."""

from pathlib import Path

import pytest
from test_wiring import FIELDS

from ovd_jax.cli import flags
from ovd_jax.cli.knobs import knobs

# Knobs that no field of an object shows: the test that sees what they do.
TESTED = {
    "wiring/test_trained_knobs.py::test_the_schedule_ends_with_the_run": (
        "num_steps", "optimizer.learning_rate", "optimizer.schedule",
        "optimizer.warmup_steps",
    ),
    "wiring/test_trained_knobs.py::test_the_optimizer_moves_as_its_knobs_say": (
        "optimizer.b1", "optimizer.b2", "optimizer.weight_decay", "optimizer.grad_clip",
    ),
    "wiring/test_trained_knobs.py::test_the_student_is_loaded_as_its_knobs_say": (
        "attention", "compute_dtype", "lora.alpha", "lora.rank", "lora.targets",
    ),
    "wiring/test_trained_knobs.py::test_advantages_are_of_their_knobs": (
        "baseline", "credit_weight", "scale_by_std",
    ),
    "wiring/test_trained_knobs.py::test_a_batch_is_of_its_knobs": (
        "length_multiple", "microbatch_tokens",
    ),
    "wiring/test_trained_knobs.py::test_a_divergence_is_of_its_knobs": (
        "distill.beta", "distill.divergence",
    ),
    "wiring/test_trained_knobs.py::test_solutions_come_from_where_the_knob_says": (
        "distill.solutions", "method",
    ),
    "wiring/test_trained_knobs.py::"
    "test_the_noise_of_a_simulator_grows_to_its_last_step": (
        "search.noise",
    ),
    "wiring/test_trained_knobs.py::test_the_bounds_of_a_collapse_are_its_knobs": (
        "collapse.entropy", "collapse.invalid_rate", "collapse.short",
        "collapse.truncated", "collapse.zero_spread",
    ),
    "wiring/test_served_knobs.py::"
    "test_scorer_and_continuer_are_asked_each_at_its_own_server": (
        "continuer.served_name", "continuer.url", "teacher.cache", "teacher.prompt",
        "teacher.served_name", "teacher.url",
    ),
    "wiring/test_served_knobs.py::"
    "test_servers_get_their_own_keys_and_so_many_requests": (
        "search.api_key_env", "search.max_concurrency", "teacher.api_key_env",
        "teacher.max_concurrency",
    ),
    "wiring/test_served_knobs.py::test_a_simulator_is_asked_at_its_server": (
        "search.backend", "search.cache", "search.prompt", "search.served_name",
        "search.url",
    ),
    "wiring/test_served_knobs.py::test_sets_are_evaluated_as_their_knobs_say": (
        "data", "eval_sampled_temperature", "eval_samples", "eval_sets",
    ),
    "wiring/test_served_knobs.py::"
    "test_attempts_are_kept_where_the_knob_says": ("eval_cache",),
    "wiring/test_served_knobs.py::"
    "test_a_served_student_is_the_one_at_the_engine": ("engine", "engine_served_name"),
    "wiring/test_env_knob.py::test_an_environment_is_the_one_that_the_knob_names": (
        "env",
    ),
    "wiring/test_served_knobs.py::test_a_task_is_of_its_knobs": (
        "held_out_data", "max_prompt_tokens", "prompt_template", "qa.prompt", "seed",
        "task",
    ),
    "test_recorded_run.py::test_gold_answers_are_shown_in_training_alone": (
        "eval_problems",
    ),
    "test_recorded_run.py::test_scores_decide_by_the_threshold": ("problems_per_step",),
    "test_examples.py::test_the_reward_of_ones_own_takes_the_place_of_the_tasks": (
        "reward",
    ),
    "test_recorded_run.py::test_a_run_leaves_what_its_knobs_say": (
        "async_batches", "checkpoint_every", "eval_every", "export_dtype", "run_dir",
    ),
    "training/test_methods.py::test_a_refreshed_reference_is_where_the_run_left_off": (
        "reference_every",
    ),
    "evaluation/test_evaluation.py::"
    "test_the_average_is_over_the_sets_that_it_is_to_be_over": (
        "averaged_sets",
    ),
    "client/test_credentials.py::test_a_key_goes_to_another_machine_over_plain_http_only_if_al"
    "lowed": ("search.allow_http", "teacher.allow_http"),
}  # fmt: skip

# Knobs of which the named file's tests see more than one test can say.
FILES = {
    "training/test_methods.py": ("model", "refills"),
    "wiring/test_run_identity.py": ("resume",),
    "reporting/test_run_dir.py": ("loggers",),
    "models/test_strangers_models.py": ("date",),
    "wiring/test_combinations.py": ("evaluate",),
    "teacher/test_roles.py": ("continuer.model", "turns.refine"),
    "toy/test_world_models.py": ("search.corpus", "search.model", "teacher.model"),
    "tasks/test_simulator_data.py": ("search.index_dir",),
    "models/test_sharding.py": ("mesh.data", "mesh.fsdp", "mesh.tp"),
    "integration/test_meshes.py": (
        "distributed.coordinator", "distributed.process", "distributed.processes",
    ),
}  # fmt: skip


def named(table) -> list[str]:
    return [knob for knobs_there in table.values() for knob in knobs_there]


def test_each_knob_is_tested_somewhere():
    known = [*{knob for knob, *_ in FIELDS}, *named(TESTED), *named(FILES)]
    there = set(knobs(flags.load_file("configs/default.py")))
    assert there - set(known) == set(), "name the test that sees what it does"
    assert set(known) - there == set(), "there is no such knob"


@pytest.mark.parametrize("test", TESTED)
def test_the_tests_are_there(test):
    file, _, name = test.partition("::")
    assert f"def {name}(" in (Path(__file__).parents[1] / file).read_text("utf-8")


@pytest.mark.parametrize("file", FILES)
def test_the_files_name_their_knobs(file):
    text = (Path(__file__).parents[1] / file).read_text("utf-8")
    assert [x for x in FILES[file] if x.rpartition(".")[2] not in text] == []
