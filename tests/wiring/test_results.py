"""The results of one model are never written over another's."""

import json

import pytest

from ovd_jax import evaluate
from ovd_jax.cli import flags
from ovd_jax.errors import UserError
from ovd_jax.wiring.results import check_results, owner


def make_config(folder, **changes):
    config = flags.load_file("configs/quickstart.py").copy_and_resolve_references()
    config.update_from_flattened_dict({"run_dir": str(folder)} | changes)
    return config


def write_results(config, text: str | None = None) -> None:
    """As an evaluation by `config` would."""
    name, own = owner(config)
    path = f"{config.run_dir}/{name}"
    with open(path, "w") as file:
        file.write(json.dumps(own | {"accuracy": 0.5}) if text is None else text)


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "world"},
        {"model": "runs/other"},
        {"engine": "http://127.0.0.1:8000/v1"},
        {"model": "Quickstart"},
    ],
)
def test_another_models_results_are_kept(tmp_path, changes):
    write_results(make_config(tmp_path))
    with pytest.raises(UserError, match=r"over them; name another .*run_dir=DIR"):
        check_results(make_config(tmp_path, **changes))
    with pytest.raises(UserError, match="of model quickstart, engine sampler, and"):
        evaluate.main(make_config(tmp_path, **changes))


def test_the_same_model_may_be_evaluated_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_results(make_config(tmp_path))
    write_results(make_config(tmp_path, model="runs/a"))
    check_results(make_config(tmp_path, model="runs/a", eval_samples=2))
    check_results(make_config(tmp_path, model=f"{tmp_path}/runs/a/"))


def test_the_audit_of_another_teacher_is_kept(tmp_path):
    audit = {"evaluate": "teacher"}
    write_results(make_config(tmp_path, **audit))
    check_results(make_config(tmp_path, **audit))
    check_results(make_config(tmp_path))  # which writes another file
    other = make_config(tmp_path, **audit, **{"teacher.url": "http://127.0.0.1:1/v1"})
    with pytest.raises(UserError, match="of teacher quickstart, and this would"):
        check_results(other)


@pytest.mark.parametrize("text", ["[]", "{", '{"accuracy": 1}', "3"])
def test_a_file_of_somebody_elses_is_kept(tmp_path, text):
    write_results(make_config(tmp_path), text)
    with pytest.raises(UserError, match="no evaluation of this program"):
        check_results(make_config(tmp_path))
