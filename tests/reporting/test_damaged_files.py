"""Files that a run keeps, damaged by somebody: one line names them and what to do."""

import json

import pytest

from ovd_jax import audit
from ovd_jax.cli import flags
from ovd_jax.cli.path_knobs import not_a_path
from ovd_jax.errors import UserError
from ovd_jax.reporting.run_dir import check_origin, first_date, open_rows, read_metrics

DEFAULT = "configs/default.py"
NO_OBJECTS = {
    "torn": b'{"model": "qui',
    "empty": b"",
    "bytes": bytes(range(256)),
    "utf-16": '{"model": "x"}'.encode("utf-16"),
    "list": b"[1, 2]",
    "number": b"3",
    "null": b"null",
    "text": b'"x"',
    "deep": b"[" * 100_000,
    "long number": b'{"step": 1' + b"0" * 5000 + b"}\n",
}


@pytest.mark.parametrize("content", NO_OBJECTS.values(), ids=NO_OBJECTS)
def test_a_config_or_an_origin_that_is_no_object_is_named(content, tmp_path):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(UserError, match=r"config.json (is|holds) .*; put it back"):
        flags.load(tmp_path, default=DEFAULT)
    (tmp_path / "origin.json").write_bytes(content)
    with pytest.raises(UserError, match=r"origin.json (is|holds) .*; put it back"):
        check_origin(tmp_path, {"model": "m", "fingerprint": "f"}, resumed=True)


@pytest.mark.parametrize(
    ("knob", "value"),
    [
        ("num_steps", "many"), ("num_steps", None), ("run_dir", ["a"]),
        ("model", {"a": 1}), ("teacher", 3), ("loggers", [1]), ("kl_coef", "x"),
    ],
)  # fmt: skip
def test_a_knob_of_another_type_in_a_saved_config_is_named(knob, value, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({knob: value}))
    with pytest.raises(UserError, match=rf"config.json is damaged: {knob}.*put it"):
        flags.load(tmp_path, default=DEFAULT)


@pytest.mark.parametrize("name", ["__class__", "a.b", ".", "teacher.url"])
@pytest.mark.parametrize("group", [(), ("teacher",)])
def test_a_name_that_no_knob_can_have_in_a_saved_config_is_named(name, group, tmp_path):
    saved = {name: 1}
    for outer in group:
        saved = {outer: saved}
    (tmp_path / "config.json").write_text(json.dumps(saved))
    with pytest.raises(UserError, match=r"config.json is damaged: .*; put it back"):
        flags.load(tmp_path, default=DEFAULT)


@pytest.mark.parametrize("origin", [{}, {"model": "m"}, {"fingerprint": ["f"]}])
def test_an_origin_without_a_fingerprint_is_another_one(origin, tmp_path):
    (tmp_path / "origin.json").write_text(json.dumps(origin))
    with pytest.raises(UserError, match="started from"):
        check_origin(tmp_path, {"model": "m", "fingerprint": "f"}, resumed=True)


@pytest.mark.parametrize(
    "line",
    [
        b"[1]\n", b"3\n", b"null\n", b'"x"\n', b"{}\n", b'{"loss": 1}\n', b"\xff\n",
        b'{"step": "1"}\n', b'{"step": null}\n', b'{"step": 1.5}\n', b"[" * 10**5,
        b'{"step": true}\n', '{"step": 1}\n'.encode("utf-16"), b"\n",
    ],
)  # fmt: skip
def test_a_line_that_is_no_row_of_a_step_is_named(line, tmp_path):
    row = b'{"step": 0, "loss": 1.0}\n'
    (tmp_path / "metrics.jsonl").write_bytes(row + line.rstrip(b"\n") + b"\n" + row)
    with pytest.raises(UserError, match=r"metrics.jsonl, line 2 is no row"):
        read_metrics(tmp_path)


def test_a_step_that_is_no_number_of_one_is_cut_off(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 0}\n' + NO_OBJECTS["long number"])
    with open_rows(path, 1):
        assert path.read_bytes() == b'{"step": 0}\n'


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"yesterday", b"2026-13-01"])
def test_a_date_that_is_none_is_named(content, tmp_path):
    (tmp_path / "date.txt").write_bytes(content)
    with pytest.raises(UserError, match=r"date.txt is .*; write it as 20"):
        first_date(tmp_path)


@pytest.mark.parametrize("knob", ["run_dir", "output", "data", "index_dir"])
def test_a_path_with_a_nul_is_refused(knob):
    assert f"{knob} is 'a\\x00b'" in not_a_path({knob: "a\0b"})


def test_an_audit_of_no_solutions_is_refused(tmp_path):
    (tmp_path / "none.jsonl").write_text("\n")
    config = flags.load_file("configs/teacher_audit.py")
    config.data = str(tmp_path / "none.jsonl")
    with pytest.raises(UserError, match=r"none.jsonl gives no solution"):
        audit.main(config)
