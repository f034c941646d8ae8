"""Keys stay out of URLs, configs, messages, and the hands of whoever listens."""

import functools
import json

import pytest
from teacher_server import TeacherServer

from ovd_jax.cli import flags
from ovd_jax.client.accounting import Accounting
from ovd_jax.client.credentials import (
    checked_url,
    exposed,
    is_loopback,
    masked,
    read_key,
)
from ovd_jax.client.transport import Transport
from ovd_jax.errors import TeacherError
from ovd_jax.search.http import Http
from ovd_jax.wiring.servers import make_transport

KEY = "sk-proj-4f9Kq2ZxW7vBn81LmTyR"
LEAKS = [
    f"https://me:{KEY}@host/v1", f"https://{KEY}@host/v1", f"me:{KEY}@host/v1",
    f"http://127.0.0.1:8001/retrieve?api_key={KEY}", f"https://host/v1?key={KEY}",
    f"https://host/v1?x=1&access_token={KEY}", f"https://host/v1?x=1;Api-Key={KEY}",
    f"https://host/v1?subscription-key={KEY}", f"https://host/v1?X-Amz-Signature={KEY}",
    f"https://host/v1?api%5Fkey={KEY}", f"https://host/v1?client_secret={KEY}",
    f"https://host/v1?PASSWORD={KEY}", f"https://host/v1?sig={KEY}",
    f"https://host/v1?auth={KEY}", f"https://host/v1#token={KEY}",
    f"https://host/{KEY}/v1", f"https://host/v1?{KEY}",
    "https://host/v1?code=abc", "https://host/v1?jwt=abc",
    *(f"https://h/{start}{KEY[8:]}/v1" for start in (
        "r8_", "fw_", "ghu_", "ghr_", "github_pat_", "tgp_v1_", "csk-", "sk_live_",
        "xoxb-", "pplx-", "co_", "jina_", "voyage-", "key-", "dop_v1_", "npm_",
    )),
    f"https://h/eyJhbGciOiJIUzI1NiJ9.{KEY[8:]}.c2lnbmF0dXJl/v1",
    f"https://h/v1?api_key%3D{KEY[8:]}", f"https://h/v1?x=1%26token%3D{KEY[8:]}",
    f"https://h/api_key/{KEY[8:]}", f"https://h/token={KEY[8:]}/v1",
    f"https://h/v1/access-token/{KEY[8:]}", "https://h?api_key=abc",
    "https://h#token=abc", "https://h/v1?otp=abc", "https://h/v1?pin=abc",
    "https://h/v1?session=abc", "https://h/v1?sessionid=abc", "https://h/v1?cookie=abc",
]  # fmt: skip
FINE = [
    "http://127.0.0.1:8000/v1", "https://host/v1/", "https://host/openai?api-version=1",
    "https://host/v1?model=tokenizer&monk=1", "http://[::1]:8000/v1",
    "https://gateway.example/sk-learn/v1", "https://h/token-free/v1",
    "https://h/keys/v1", "https://h/openai/deployments/co-large-instruct-2024/v1",
    "https://h/accounts/0123456789abcdef0123456789abcdef/ai/v1", "https://h/v1?top=1",
    "https://h/auth/realms/v1",
]  # fmt: skip


@pytest.mark.parametrize("url", LEAKS)
@pytest.mark.parametrize(
    "knob", ["teacher.url", "continuer.url", "search.url", "engine"]
)
def test_a_url_that_holds_a_credential_is_refused_unseen(url, knob):
    with pytest.raises(ValueError, match=knob) as caught:
        checked_url(url, knob)
    assert KEY[8:] not in str(caught.value)
    assert "abc" not in str(caught.value)
    assert exposed({knob: url, "search.backend": "http"}) == str(caught.value)


@pytest.mark.parametrize("url", FINE)
def test_other_urls_are_taken(url):
    assert checked_url(url, "teacher.url") == url.rstrip("/")


@pytest.mark.parametrize(
    "url",
    ["", "http://", "127.0.0.1:8000/v1", "ftp://host/v1", "http://[::1/v1", "http://h:x",
     "http://host:99999/v1", "file:///etc/passwd"],
)  # fmt: skip
def test_what_is_no_url_is_refused(url):
    with pytest.raises(ValueError, match="is no URL"):
        checked_url(url, "teacher.url")


def test_an_engine_of_searches_and_a_data_set_take_no_credential_either():
    for url in LEAKS[:4]:
        with pytest.raises(ValueError, match=r"search\.url") as caught:
            Http(url, topk=1, timeout_s=1, retries=0)
        assert KEY not in str(caught.value)
    said = exposed({"data": f"https://hub/rows.jsonl?token={KEY}"})
    assert said.startswith("data holds a credential")
    assert KEY not in said


@pytest.mark.parametrize(
    "variable",
    [
        KEY,
        "AKIAIOSFODNN7EXAMPLE",
        "hf_abcdefghijklmnop",
        "",
        " ",
        "two words",
        "UNSET_KEY",
    ],
)
def test_a_key_in_place_of_its_variable_s_name_is_refused_unseen(variable, monkeypatch):
    monkeypatch.delenv("UNSET_KEY", raising=False)
    for knob in ("teacher.api_key_env", "search.api_key_env"):
        with pytest.raises(ValueError, match=knob) as caught:
            read_key(variable, knob)
        assert len(variable) < 3 or variable not in str(caught.value)
        assert exposed({knob: variable}) == str(caught.value)


def test_a_key_is_read_without_the_line_break_of_its_file(monkeypatch):
    monkeypatch.setenv("OUR_KEY", f" {KEY}\n")
    assert read_key("OUR_KEY", "teacher.api_key_env") == KEY
    monkeypatch.setenv("OUR_KEY", "\n")
    assert read_key("OUR_KEY", "teacher.api_key_env") is None
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert read_key("OPENAI_API_KEY", "teacher.api_key_env") is None
    for value in (f"{KEY}\nX-Header: 1", f"{KEY}\u00e9", "two words"):
        monkeypatch.setenv("OUR_KEY", value)
        with pytest.raises(ValueError, match="no key has") as caught:
            read_key("OUR_KEY", "teacher.api_key_env")
        assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("localhost", True), ("LocalHost.", True), ("a.localhost", True),
        ("127.0.0.1", True), ("127.3.2.1", True), ("::1", True),
        ("::ffff:127.0.0.1", True), ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False), ("10.0.0.5", False), ("0.0.0.0", False),
        ("169.254.169.254", False), ("::ffff:10.0.0.1", False), ("host", False),
    ],
)  # fmt: skip
def test_only_this_machine_is_loopback(host, local):
    assert is_loopback(host) == local


SERVERS = {  # knob of a URL: group of knobs with its key
    "teacher.url": "teacher", "continuer.url": "teacher", "engine": "teacher",
    "search.url": "search",
}  # fmt: skip


@pytest.mark.parametrize("knob", SERVERS)
def test_a_key_goes_to_another_machine_over_plain_http_only_if_allowed(
    knob, monkeypatch
):
    group = SERVERS[knob]
    monkeypatch.setenv("OUR_KEY", KEY)
    values = {f"{group}.api_key_env": "OUR_KEY", f"{group}.allow_http": False}
    values |= {"search.backend": "simulated"}
    for url in ("http://10.0.0.5:8000/v1", "http://127.0.0.1:1/v1,http://host/v1"):
        said = exposed(values | {knob: url})
        assert f"{knob} would send the key in OUR_KEY to" in said
        assert f"{group}.allow_http=True" in said
        assert exposed(values | {knob: url, f"{group}.allow_http": True}) == ""
    for url in ("https://host/v1", "http://127.0.0.1:8000/v1", "http://[::1]:8000/v1"):
        assert exposed(values | {knob: url}) == ""
    monkeypatch.setenv("OUR_KEY", "")
    assert exposed(values | {knob: "http://host/v1"}) == ""


def test_programs_refuse_before_anything_is_loaded(capsys, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for argument in (
        f"--config.teacher.url={LEAKS[0]}", "--config.teacher.url=http://10.0.0.5/v1",
        f"--config.search.url={LEAKS[3]}", f"--config.continuer.url={LEAKS[4]}",
        f"--config.engine={LEAKS[5]}", f"--config.teacher.api_key_env={KEY}",
    ):  # fmt: skip
        with pytest.raises(SystemExit):
            flags.run(pytest.fail, doc="", default="configs/default.py",
                      argv=["p", argument])  # fmt: skip
        said = capsys.readouterr()
        assert said.err.count("\n") == 1
        assert KEY not in said.err + said.out


def test_what_is_built_refuses_too(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    options = flags.load_file("configs/default.py").teacher
    with pytest.raises(ValueError, match=r"engine would send the key .* plain http"):
        make_transport("http://10.0.0.5/v1", options, name="", knob="engine")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"wrong key {KEY}.", "wrong key [key]."),
        (f"wrong key {KEY[:20]}", "wrong key [key]"),
        (f"{KEY[9:]}, {KEY[:9]}...", "[key], [key]..."),
        (f"{KEY}{KEY}", "[key][key]"),
        ("sk-proj", "sk-proj"),  # so much of it gives nothing away
        ("", ""),
    ],
)
def test_a_key_is_masked_whole_or_in_pieces(text, shown):
    assert masked(text, KEY) == shown
    assert masked(text, None) == text


REPEATED = {
    "late in a message": (401, {"error": {"message": "x" * 280 + KEY}}),
    "in FastAPI's words": (422, {"detail": [{"loc": ["h"], "msg": "y" * 285 + KEY}]}),
    "in another form": (500, {"oops": ["z" * 150, KEY, {"deep": KEY}]}),
    "cut by the server": (403, {"error": {"message": f"bad key {KEY[:17]}..."}}),
    "no JSON": (502, f"<html>{'w' * 270}{KEY}</html>"),
    "an answer of another shape": (200, {"choices": "x" * 180 + KEY}),
    "an answer under its name": (200, {"choices": [{"text": "7"}], "model": KEY}),
    "escaped": (400, json.dumps({"message": KEY}).replace("4", "\\u0034")),
    "in a text": (200, {"choices": [{"text": f"it is {KEY}"}], "model": "teacher"}),
}


@pytest.mark.parametrize("where", REPEATED)
def test_a_key_that_a_server_repeats_is_shown_nowhere(where, caplog):
    status, body = REPEATED[where]
    raw = body if isinstance(body, str) else json.dumps(body)
    said = ""
    with TeacherServer() as server:
        transport = Transport(
            [server.url], name="", key=KEY, timeout_s=5.0, retries=0, wait=False,
            max_concurrency=2, accounting=Accounting(),
        )  # fmt: skip
        transport.run([transport.connect])
        server.raw = status, raw.encode()
        ask = functools.partial(
            transport.post, "/completions", {"prompt": "q", "max_tokens": 1},
            priority="", affinity=0, check=lambda reply: None,
        )  # fmt: skip
        try:
            said = transport.run([ask])[0].text
        except TeacherError as error:
            said = str(error)
        finally:
            transport.close()
    said += caplog.text
    pieces = {KEY[i : i + 8] for i in range(len(KEY) - 7)}
    assert not any(piece in said for piece in pieces)
