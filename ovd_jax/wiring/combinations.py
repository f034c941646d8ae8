"""Checks combinations of knobs before anything is loaded.

A run would notice these mistakes late or never: one without gradients ends normally.
"""

from collections.abc import Callable

import jax
from ml_collections import ConfigDict

from ovd_jax.errors import UserError
from ovd_jax.models.lora import Lora
from ovd_jax.own_code import load_code, names_code
from ovd_jax.rollout.judge import check_feedback
from ovd_jax.rollout.policy import Rules
from ovd_jax.search.simulator_prompts import find_prompt
from ovd_jax.tasks import qa_prompts
from ovd_jax.teacher.prompts import load_prompt
from ovd_jax.training.methods import method_of, rules, solutions
from ovd_jax.training.objectives import by_policy
from ovd_jax.wiring.env import env_class
from ovd_jax.wiring.named_files import OWN_CODE, check_files, parts


def check_training(config: ConfigDict) -> None:
    """Raises UserError if a training by `config` cannot work, or would learn
    nothing."""
    method = method_of(config)
    made = rules(config)
    method.objective(config, lambda: None, None)
    Lora(**config.lora)
    if method.needs_text_teacher(config):
        check_feedback(made, load_prompt(config.teacher.prompt))
    for wrong in (no_gradient, idle_rules, idle_knobs):
        raise_if(wrong(config, made))
    raise_if(greedy_evaluation(config))
    check_parts(config)


def check_evaluation(config: ConfigDict) -> None:
    """Raises UserError if an evaluation by `config` cannot work."""
    if config.evaluate == "teacher" or config.test_threshold:
        prompt, threshold = load_prompt(config.teacher.prompt), config.test_threshold
        if threshold and not prompt.level_of(threshold):
            raise_if(
                f"test_{prompt.meaning_of(threshold)} Raise it, or set it to 0 for no "
                "teacher."
            )
    if config.test_threshold and not config.test_replaced_steps:
        raise UserError(
            f"test_threshold {config.test_threshold:g} with test_replaced_steps 0 "
            "replaces nothing; raise the latter, or set the threshold to 0."
        )
    check_parts(config)


def check_tuning(config: ConfigDict) -> None:
    """Raises UserError if a fine-tuning by `config` cannot work."""
    Lora(**config.lora)
    check_files(config)


def check_parts(config: ConfigDict) -> None:
    """Raises UserError for contradicting knobs of parts, and for missing files."""
    for wrong in (idle_env, idle_search):
        raise_if(wrong(config))
    if config.search.backend == "simulated":
        find_prompt(config.search.prompt)
    if config.task == "qa":
        qa_prompts.load_prompt(config.qa.prompt)
    check_own_code(config)
    env_class(config)
    check_files(config)


def check_own_code(config: ConfigDict) -> None:
    """Raises UserError for user code that cannot be loaded or called, or that is named
    along with a server or a token-level method."""
    for knob in OWN_CODE:
        for value in parts(config, knob):
            is_reward = knob == "reward" and value
            if (is_reward or names_code(value)) and not callable(
                load_code(value, knob)
            ):
                raise UserError(f"{knob} is {value!r}, which cannot be called.")
    for role in ("teacher", "continuer"):
        options = config[role]
        if options.url and names_code(options.model):
            raise UserError(
                f"{role}.url is {options.url} and {role}.model is {options.model!r}; "
                "one of them is asked: leave the other empty."
            )
    if method_of(config).needs_token_teacher and names_code(config.teacher.model):
        raise UserError(
            f"The method {config.method} reads probabilities of tokens, which "
            f"{config.teacher.model!r} does not give; name a model."
        )


def raise_if(said: str) -> None:
    """Raises UserError with the message, if there is one."""
    if said:
        raise UserError(said)


def replaces(config: ConfigDict, made: Rules) -> bool:
    """True if the teacher may replace trajectories of the student."""
    rejects = made.threshold > 0 or made.rejection != "score"
    by_step = made.replacement == "step"
    tries = made.max_replaced_steps if by_step else made.demonstration_tries
    return method_of(config).needs_text_teacher(config) and rejects and bool(tries)


def no_gradient(config: ConfigDict, made: Rules) -> str:
    """The message for a config whose advantages are all 0."""
    by_advantages = method_of(config).objective is by_policy
    if not by_advantages or config.imitation_coef or made.credit != "trajectory":
        return ""
    compared = replaces(config, made)
    if config.samples == 1 and not (
        compared and config.baseline in ("before", "union")
    ):
        return (
            f"samples 1 with baseline {config.baseline} compares each trajectory with "
            "itself, so that nothing is learnt; set samples to 2 or more"
            + (", or baseline to union." if compared else ".")
        )
    if not config.temperature and not compared:
        return (
            f"temperature 0 makes the {config.samples} samples of a problem the same, "
            "so that nothing is learnt; set it to 1, say."
        )
    return ""


def idle_rules(config: ConfigDict, made: Rules) -> str:
    """The message for a config whose scores, or requests, have no effect."""
    method = config.method
    if method == "dpo_pairs" and not replaces(config, made):
        return (
            "dpo_pairs learns from trajectories that were replaced; with "
            f"demonstration_tries {config.demonstration_tries} and threshold "
            f"{config.threshold:g} none is: raise both over 0."
        )
    judged = method == "ovd" and made.threshold > 0
    if not judged or replaces(config, made) or made.feedback != "none":
        return ""
    if made.credit != "trajectory":
        return ""
    knob = "max_replaced_steps" if made.replacement == "step" else "demonstration_tries"
    return (
        f"threshold {config.threshold:g} rejects, but {knob} 0 replaces nothing, and "
        "credit is by rewards alone: the scores decide nothing. Raise it, or set "
        "threshold to 0."
    )


def idle_knobs(config: ConfigDict, made: Rules) -> str:
    """The message for knobs of the update or of stopping without effect."""
    collapse = config.collapse.to_dict()
    if collapse.pop("window") and not any(collapse.values()):
        return (
            f"collapse.window is {config.collapse.window}, but no bound is set that "
            "would stop a run: set one of "
            + ", ".join(f"collapse.{name}" for name in collapse)
            + "."
        )
    if config.problems_per_step < config.minibatches:
        return (
            f"{config.problems_per_step} problems a step cannot be cut into "
            f"{config.minibatches} minibatches; change one of the two."
        )
    if config.reference_every and not refers(config):
        return (
            f"reference_every {config.reference_every}, but nothing refers to it: set "
            "it to 0, or kl_coef to more."
        )
    return ""


def refers(config: ConfigDict) -> bool:
    """True if the method compares the policy with a reference."""
    objective = method_of(config).objective(config, object, None)
    return objective.reference is not None


def greedy_evaluation(config: ConfigDict) -> str:
    """The message for a config whose attempts are all the same."""
    several = config.eval_problems and config.eval_samples > 1
    if several and not config.eval_temperature:
        return (
            f"{config.eval_samples} greedy samples of a problem are all the same; set "
            "eval_temperature, or eval_samples to 1."
        )
    return ""


def idle_env(config: ConfigDict) -> str:
    """Where there are no turns for an environment, or solutions in a single one."""
    most = config.turns.max_observations
    if not most and config.env != "search":
        return (
            f"env is {config.env!r}, but turns.max_observations is 0, so that nothing "
            "answers: set it to the most answers of a conversation, 4 say."
        )
    if most and method_of(config).collect is solutions:
        return (
            f"method {config.method!r} has solutions written in a single turn; the "
            "methods ovd, grpo, rejection_ft and on_policy_kd learn from conversations."
        )
    return ""


def idle_search(config: ConfigDict) -> str:
    """The message for conversations without an engine or a suitable task."""
    options = config.search
    most = config.turns.max_observations if config.env == "search" else 0
    needs = {"http": "url", "bm25": "corpus"}.get(options.backend)
    if len(options.noise) != 2:
        return (
            f"search.noise is {options.noise}; it has two shares, at the first and at "
            "the last step: write it as '(0.0, 0.5)'."
        )
    if most and config.task != "qa":
        return (
            f"turns.max_observations is {most}, but only the task qa has searches, and "
            f"task is {config.task}: set it to 0, or env to another than search."
        )
    if most and options.backend == "none":
        return (
            f"turns.max_observations is {most}, but search.backend is none: name an "
            "engine, bm25, http or simulated, or set the former to 0."
        )
    if most and needs and not options[needs]:
        return f"search.backend {options.backend} needs search.{needs}, which is empty."
    return ""


CHECKS: dict[str, Callable] = {"train": check_training, "evaluate": check_evaluation}


def check_prefetch(config: ConfigDict) -> None:
    """Raises UserError if the config cannot prefetch batches."""
    if config.async_batches not in (0, 1):
        raise UserError(f"async_batches is {config.async_batches}; use 0 or 1.")
    if not config.async_batches:
        return
    if not config.importance_cap:
        raise UserError(
            "async_batches 1 trains on samples of older weights: set importance_cap, "
            "to 2.0 say, so that each token counts by how likely it is now."
        )
    simulates = (
        config.turns.max_observations
        and config.env == "search"
        and config.search.backend == "simulated"
    )
    here = not config.teacher.url or (simulates and not config.search.url)
    if jax.process_count() > 1 or (here and jax.device_count() > 1):
        raise UserError(
            "async_batches 1 needs one process and, on several devices, a teacher at "
            "teacher.url and a simulated engine at search.url: two threads that start "
            "programs on all devices may wait for each other for ever. Set it to 0."
        )
