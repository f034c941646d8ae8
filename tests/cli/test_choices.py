"""Words and paths that no run could use are refused, by name, before anything else."""

import subprocess
import sys
from pathlib import Path

import pytest

from ovd_jax.cli import flags
from ovd_jax.cli.choices import CHOICES, OF_SFT, not_a_choice
from ovd_jax.cli.config_files import ROOT
from ovd_jax.cli.knobs import knobs
from ovd_jax.cli.path_knobs import PATHS, expanded, not_a_path
from ovd_jax.learning.losses import KL_ESTIMATORS, SURROGATES
from ovd_jax.models.attention import FORMS
from ovd_jax.models.lora import TARGETS
from ovd_jax.models.transformer import REMAT
from ovd_jax.reporting.run_dir import LOGGERS
from ovd_jax.search import engine
from ovd_jax.tasks.math import TEMPLATES
from ovd_jax.tasks.qa import REWARDS
from ovd_jax.tasks.steps import RULES
from ovd_jax.teacher import failure_policy
from ovd_jax.training.methods import METHODS
from ovd_jax.wiring.env import ENVS
from ovd_jax.wiring.search import BACKENDS

FREE = {  # any text
    "turns.correction", "teacher.url", "teacher.served_name", "teacher.api_key_env",
    "continuer.url", "continuer.served_name", "search.url", "search.served_name",
    "search.api_key_env", "engine", "engine_served_name", "distributed.coordinator",
    "host", "date",
    "stop_strings", "eval_sets", "averaged_sets", "overrides", "runs",
    "eval_overrides", "tests",
}  # fmt: skip
PROGRAMS = ("default", "sft", "export", "compare", "serve_search", "simulator_data")


def texts(program: str) -> set[str]:
    """The knobs of a program that hold strings."""
    return {
        name
        for name, (kind, value) in knobs(
            flags.load_file(f"configs/{program}.py")
        ).items()
        if kind is str or (kind is tuple and all(isinstance(x, str) for x in value))
    }


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_text_of_a_config_is_a_word_a_path_or_free(program):
    assert texts(program) <= CHOICES.keys() | set(PATHS) | FREE


@pytest.mark.parametrize(
    ("knob", "words"),
    [
        ("method", METHODS), ("loggers", LOGGERS), ("prompt_template", TEMPLATES),
        ("qa.reward", REWARDS), ("step_rule", RULES), ("attention", FORMS),
        ("lora.targets", TARGETS), ("teacher.on_failure", failure_policy.POLICIES),
        ("search.on_failure", engine.POLICIES), ("search.backend", BACKENDS),
        ("env", ENVS),
        ("surrogate", SURROGATES), ("kl_estimator", KL_ESTIMATORS), ("remat", REMAT),
    ],
)  # fmt: skip
def test_the_words_are_those_of_the_code(knob, words):
    assert set(CHOICES[knob]) == set(words)


def test_shipped_configs_hold_words_and_paths_alone():
    for file in (ROOT / "configs").glob("[a-z]*.py"):
        found = knobs(flags.load_file(str(file)))
        values = {name: value for name, (_, value) in found.items()}
        assert not not_a_choice(values), file
        assert not not_a_path(values), file


def refused(capsys, program: str, *arguments: str) -> str:
    """The one line in which a program refuses its command line."""
    argv = [program, f"--config=configs/{program}.py", *arguments]
    default = f"configs/{program}.py"
    with pytest.raises(SystemExit) as exit_:
        flags.run(lambda config: None, doc="", default=default, argv=argv)
    assert exit_.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


@pytest.mark.parametrize("knob", sorted(CHOICES.keys() - {"dtype"}))
def test_an_unknown_word_of_every_knob_is_refused(capsys, knob):
    words = CHOICES[knob]
    typo = words[0][:-1] + "_"
    written = f"('{typo}',)" if knob in ("loggers", "lora.targets") else typo
    said = refused(capsys, "default", f"--config.{knob}={written}")
    assert said.startswith(f"error: {knob} is {typo!r}; use one of {words[0]}, ")


@pytest.mark.parametrize(
    ("knob", "word", "meant"),
    [
        ("baseline", "mean", ""),
        ("export_dtype", "bf16", "bfloat16"),
        ("optimizer.schedule", "Cosine", "cosine"),
        ("compute_dtype", "bf16", "bfloat16"),
        ("rejection", "softmax", "soft"),
    ],
)
def test_the_word_that_was_probably_meant_is_named(capsys, knob, word, meant):
    said = refused(capsys, "default", f"--config.{knob}={word}")
    assert f"Did you mean {meant}" in said if meant else "mean?" not in said


def test_each_program_has_words_of_its_own(capsys):
    for word in OF_SFT["task"]:
        assert not not_a_choice({"task": word, "batch_size": 1})
    assert "arithmetic, world" in refused(capsys, "sft", "--config.task=math")
    assert "arithmetic, math, qa" in refused(capsys, "default", "--config.task=world")
    assert "float16" in refused(capsys, "export", "--config.dtype=int8")


@pytest.mark.parametrize(
    ("program", "knob", "path"),
    [
        ("default", "run_dir", "gs://bucket/run"),
        ("default", "run_dir", "s3://bucket/run"),
        ("default", "run_dir", "gs:/bucket/run"),
        ("default", "data", "hdfs:///rows.jsonl"),
        ("default", "data", "mine.jsonl,s3a://bucket/rows.jsonl"),
        ("default", "held_out_data", "https://example.com/rows.jsonl"),
        ("default", "model", "gs://bucket/model"),
        ("default", "teacher.cache", "az://container/cache"),
        ("default", "eval_cache", "file:///tmp/cache"),
        ("default", "search.corpus", "user@host:/corpus.jsonl"),
        ("sft", "run_dir", "r2://bucket/run"),
        ("export", "output", "GS://bucket/model"),
        ("simulator_data", "output", "s3://bucket/rows.jsonl"),
        ("serve_search", "corpus", "gcs://bucket/corpus.jsonl"),
        ("compare", "run_dir", "abfs://fs@account/run"),
    ],
)
def test_other_storage_is_refused_in_every_path(capsys, program, knob, path):
    said = refused(capsys, program, f"--config.{knob}={path}")
    assert said.startswith(f"error: {knob} is {path!r}; nothing is read from")


def test_names_of_the_hub_and_windows_of_columns_are_no_storage():
    fine = {
        "data": "openai/gsm8k:main", "model": "Qwen/Qwen2.5-1.5B", "run_dir": "a:b",
        "search.corpus": "wiki/a.jsonl,wiki/b:1.jsonl",
    }  # fmt: skip
    assert not not_a_path(fine)


def test_a_run_needs_a_folder(capsys):
    assert "run_dir is empty" in refused(capsys, "default", "--config.run_dir=")


def test_a_tilde_is_the_home_folder_in_every_path():
    home = str(Path.home())
    assert expanded({"run_dir": "~/run", "model": "a~/b", "teacher.url": "~/x"}) == {
        "run_dir": f"{home}/run"
    }
    assert expanded({"data": "~/a.jsonl, ~/b.jsonl,c~"}) == {
        "data": f"{home}/a.jsonl, {home}/b.jsonl,c~"
    }
    assert expanded({"output": "~", "models": ("~/m", "n")}) == {
        "output": home,
        "models": (f"{home}/m", "n"),
    }
    assert expanded({"run_dir": "~no_such_user/x"}) == {}
    config, _ = flags.parse(
        ["train", "--config.run_dir=~/r", "--config.teacher.cache=~/c"],
        doc=None,
        default="configs/default.py",
    )
    assert (config.run_dir, config.teacher.cache) == (f"{home}/r", f"{home}/c")
    assert config.is_locked


def user_file(tmp_path, *lines: str, base: str = "quickstart") -> str:
    """A config file of a user's, who changes a shipped one."""
    path = tmp_path / "mine.py"
    body = "".join(f"    {line}\n" for line in lines)
    path.write_text(
        f"from ml_collections import ConfigDict\nfrom configs import {base}\n"
        f"def get_config():\n    config = {base}.get_config()\n{body}"
        "    return config\n"
    )
    return str(path)


def file_refused(capsys, path: str, default: str = "default") -> str:
    with pytest.raises(SystemExit) as exit_:
        flags.run(
            lambda config: None, doc="", default=f"configs/{default}.py",
            argv=["train", f"--config={path}"],
        )  # fmt: skip
    assert exit_.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: --config={path}")
    assert said.count("\n") == 1
    return said


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("config.num_step = 3", "num_step = 3, but there is no such knob. Did you mean "
         "--config.num_steps (int, now 100)"),
        ("config.learning_rate = 1e-3", "mean --config.optimizer.learning_rate"),
        ("config.optimizer.lr = 1e-3", "optimizer.lr = 0.001, but there is no such"),
        ("config.teacher.max_tokens = 3", "Did you mean --config.teacher.max_new_tok"),
        ("config.turns.observations = 3", "you mean --config.turns.max_observations"),
        ("config.my = ConfigDict({'own': 1})", "sets my.own = 1"),
        ("config.samples = True", "sets samples = True: expected an int"),
        ("config.samples = None", "sets samples = None: expected an int"),
        ("config.samples = '8'", "line 5): TypeError: Could not override field 'sam"),
        ("config.unlock().lora = ConfigDict(config.lora.to_dict() | {'rank': '4'})",
         "lora.rank = '4': expected an int; it is 0 now"),
        ("config.optimizer = ConfigDict({'learning_rate': '1e-3'})",
         "optimizer.learning_rate = '1e-3': expected a float"),
        ("config.optimizer = ConfigDict({'learning_rate': 1e-3})",
         "has no optimizer.b1; begin with"),
        ("config.loggers = (1,)", "loggers = (1,): expected a tuple"),
        ("config.eval_sets = (3,)", "eval_sets = (3,): expected a tuple"),
        ("config = ConfigDict({'seed': 3})", "has no aggregation; begin with"),
    ],
)  # fmt: skip
def test_what_a_users_file_gets_wrong_is_refused(tmp_path, capsys, line, said):
    assert said in file_refused(capsys, user_file(tmp_path, line))


def test_words_numbers_and_paths_of_a_file_are_looked_at_as_well(tmp_path, capsys):
    for line, said in {
        "config.baseline = 'mean'": "baseline is 'mean'",
        "config.samples = 0": "samples is 0",
        "config.run_dir = 'gs://x'": "run_dir is 'gs://x'",
    }.items():
        with pytest.raises(SystemExit):
            flags.run(
                lambda config: None, doc="", default="configs/default.py",
                argv=["train", f"--config={user_file(tmp_path, line)}"],
            )  # fmt: skip
        assert said in capsys.readouterr().err


def test_a_config_of_another_program_is_refused(tmp_path, capsys):
    path = user_file(tmp_path, base="sft")
    assert "batch_size" in file_refused(capsys, path)
    assert "arithmetic" in file_refused(capsys, path, default="export")


def test_an_int_of_a_file_may_become_a_float_on_the_command_line(tmp_path):
    path = user_file(
        tmp_path,
        "group = config.optimizer.to_dict()",
        "config.optimizer = ConfigDict(group | {'learning_rate': 1, 'grad_clip': 2})",
    )
    config, _ = flags.parse(
        ["train", f"--config={path}", "--config.optimizer.learning_rate=3e-4"],
        doc=None,
        default="configs/default.py",
    )
    assert config.optimizer.learning_rate == 3e-4
    assert type(config.optimizer.grad_clip) is float


@pytest.mark.parametrize(
    "script", sorted(path.name for path in (ROOT / "benchmarks").glob("*.py"))
)
def test_every_benchmark_finds_its_default_config(script):
    text = (ROOT / "benchmarks" / script).read_text()
    if 'default="' in text:
        default = text.split('default="')[1].split('"')[0]
        flags.parse([script], doc=None, default=default)


def test_a_tilde_in_the_name_of_the_config_file(tmp_path):
    (tmp_path / "mine.py").write_text(Path("configs/export.py").read_text())
    code = (
        "from ovd_jax.cli import flags\n"
        "config, _ = flags.parse(['p', '--config=~/mine.py'], doc=None, "
        "default='configs/export.py'); print(config.dtype)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True,
        env={"HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.stdout == "bfloat16\n", done.stderr
