"""Servers that refuse some of the usual requests; a run finds out before it begins."""

import threading
import time

import pytest
from served_judges import PROBLEMS, REQUESTS, answers
from teacher_server import TeacherServer

from ovd_jax.cli import flags
from ovd_jax.client import transport as transport_module
from ovd_jax.client.replies import Denied
from ovd_jax.errors import TeacherError, UserError
from ovd_jax.wiring.servers import make_transport


def openai_says(message, param):
    error = {"message": message, "type": "invalid_request_error", "param": param}
    return 400, {"error": error}


def wants_new_budget(body):
    if "max_tokens" in body:
        return openai_says(
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
            "'max_completion_tokens' instead.", "max_tokens",
        )  # fmt: skip
    return None


def wants_temperature_one(body):
    if body.get("temperature", 1) != 1:
        return openai_says("Only the default (1) value is supported.", "temperature")
    return None


def knows_no_temperature(body):
    if "temperature" in body:
        return 400, {"message": "bad request"}
    return None


def wants_some_temperature(body):
    if body.get("temperature", 1) <= 0:
        return 422, {"error": "`temperature` must be strictly positive"}
    return None


def knows_no_seed(body):
    if "seed" in body:
        where = {"type": "extra_forbidden", "loc": ["body", "seed"]}
        return 422, {"detail": [where | {"msg": "Extra inputs are not permitted"}]}
    return None


def has_no_seed(body):
    if "seed" in body:  # as llama.cpp says it
        return 501, {"error": {"code": 501, "type": "not_supported_error"}}
    return None


def dislikes_seed(body):
    if "seed" in body:
        return 400, {"detail": "bad request"}
    return None


def knows_no_stop(body):
    if "stop" in body:
        return 400, {"error": {"message": "stop is not supported"}}
    return None


def shows_at_most(count):
    def refuses(body):
        if body.get("top_logprobs", 0) > count:
            return 400, {"error": {"message": "top_logprobs is too large"}}
        return None

    return refuses


def knows_no_logprobs(body):
    if "logprobs" in body or "top_logprobs" in body:
        return 400, {"error": {"message": "logprobs are not supported"}}
    return None


def all_of(*rules):
    return lambda body: next(filter(None, (rule(body) for rule in rules)), None)


DIALECTS = {  # what the server refuses: (words of the warning, fields never sent)
    wants_new_budget: ("max_tokens is sent as max_completion_tokens", {"max_tokens"}),
    wants_temperature_one: ("temperature 0.7 is left out", set()),
    knows_no_temperature: ("temperature 0.7 is left out", set()),
    knows_no_seed: ("seed is left out", {"seed"}),
    dislikes_seed: ("seed is left out", {"seed"}),
    has_no_seed: ("seed is left out", {"seed"}),
    knows_no_stop: ("stop is left out", {"stop"}),
    all_of(wants_new_budget, wants_temperature_one, dislikes_seed): (
        "max_tokens is sent as", {"max_tokens", "seed"},
    ),
    all_of(knows_no_seed, knows_no_stop, knows_no_logprobs): ("seed is", {"seed"}),
}  # fmt: skip


@pytest.mark.parametrize("refuses", DIALECTS)
@pytest.mark.parametrize("without", [(), ("logprobs", "constraint")])
def test_what_a_server_refuses_is_renamed_or_left_out(
    refuses, without, connect, caplog
):
    """And said once; no request of the run is refused after that."""
    said, never_sent = DIALECTS[refuses]
    refused = []

    def counted(body):
        if answer := refuses(body):
            refused.append(body)
        return answer

    with TeacherServer(
        refuses=counted, without=without, write=lambda text, seed: "7"
    ) as server:
        teacher = connect(server)
        assert caplog.text.count(said) == 1
        trials, before = len(refused), len(server.bodies)
        scores = teacher.score(REQUESTS, seed=0)
        texts = teacher.demonstrate(PROBLEMS, seed=0)
        bodies = server.bodies[before:]
    assert 0 < trials == len(refused)
    assert None not in scores
    assert texts == ["7", "7"]
    assert all(never_sent.isdisjoint(body) for body in bodies)
    assert all({"max_tokens", "max_completion_tokens"} & set(body) for body in bodies)


def with_status(status, *rules):
    """The rules of a server that calls its refusals a fault of its own."""

    def refuses(body):
        return (status, {"error": "internal error"}) if all_of(*rules)(body) else None

    return refuses


def knows_no_constraint(body):
    unknown = {"structured_outputs", "guided_choice"} & set(body)
    return (400, {"error": "unknown field"}) if unknown else None


def begins_no_answer(body):
    unknown = "continue_final_message" in body
    return (400, {"error": "unknown field"}) if unknown else None


FAULTY = {  # rules of a server: (words of the warning, fields that are never sent)
    (wants_new_budget,): ("max_tokens is sent as", {"max_tokens"}),
    (wants_temperature_one,): ("temperature 0.7 is left out", set()),
    (dislikes_seed,): ("seed is left out", {"seed"}),
    (knows_no_stop, dislikes_seed): ("stop is left out", {"seed", "stop"}),
    (knows_no_logprobs,): ("has no log-probabilities", {"logprobs", "top_logprobs"}),
    (knows_no_constraint, begins_no_answer): (
        "has no answers that are begun for it",
        {"structured_outputs", "guided_choice", "continue_final_message"},
    ),
    (dislikes_seed, knows_no_logprobs, knows_no_constraint, begins_no_answer): (
        "seed is left out", {"seed", "logprobs", "guided_choice"},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("status", "policy"), [(500, "wait"), (503, "fail")])
@pytest.mark.parametrize("rules", FAULTY)
def test_a_field_answered_with_a_server_error_is_left_out(
    rules, status, policy, connect, caplog
):
    """And said once, after a bounded number of requests; none of the run fails."""
    said, never_sent = FAULTY[rules]
    refuses, refused = with_status(status, *rules), []

    def counted(body):
        if answer := refuses(body):
            refused.append(body)
        return answer

    with TeacherServer(refuses=counted, write=answers("7")) as server:
        teacher = connect(server, policy)
        assert caplog.text.count(said) == 1
        assert "waits for its" not in caplog.text
        trials, before = len(refused), len(server.bodies)
        assert None not in teacher.score(REQUESTS, seed=0)
        assert teacher.demonstrate(PROBLEMS, seed=0) == ["7", "7"]
        bodies = server.bodies[before:]
    assert 0 < trials == len(refused) <= 150
    assert all(never_sent.isdisjoint(body) for body in bodies)


@pytest.mark.parametrize("status", [500, 502, 520])
def test_a_path_answered_with_a_server_error_is_not_there(status, connect, caplog):
    with TeacherServer(info=status) as server:
        assert None not in connect(server).score(REQUESTS, seed=0)
    assert "waits for its" not in caplog.text


def test_a_server_that_is_broken_at_the_start_is_waited_for(connect, caplog):
    """Nothing is left out because of its errors."""
    with TeacherServer(faults={"500": 1.0}) as server:
        mended = threading.Timer(3.0, server.faults.clear)
        mended.start()
        teacher = connect(server)
        mended.join()
        assert "refuses fields" not in caplog.text
        assert teacher._served.top == 20
        server.faults["500"] = 1.0
        with pytest.raises(TeacherError, match="HTTP 500, out of memory"):
            connect(server, "fail")


@pytest.mark.parametrize("count", [19, 10, 5, 3, 2])
def test_a_server_shows_as_many_tokens_as_it_is_willing_to(count, connect):
    with TeacherServer(refuses=shows_at_most(count), write=answers("7")) as server:
        teacher = connect(server)
        assert teacher._served.top == max(n for n in (10, 5, 3, 0) if n <= count)
        assert None not in teacher.score(REQUESTS, seed=0)


@pytest.mark.parametrize(("rule", "cold"), [("argmax", False), ("sample", True)])
def test_only_the_temperature_that_is_refused_is_left_out(rule, cold, connect):
    """The demonstrations keep theirs."""
    with TeacherServer(
        refuses=wants_some_temperature, without=("logprobs", "constraint"),
        write=lambda text, seed: "7",
    ) as server:  # fmt: skip
        teacher = connect(server, score_rule=rule)
        teacher.score(REQUESTS, seed=0)
        assert ("temperature" in server.bodies[-1]) is cold
        teacher.demonstrate(PROBLEMS, seed=0)
        assert server.bodies[-1]["temperature"] == 0.7


def test_a_stop_that_is_left_out_is_cut_here(connect):
    with TeacherServer(
        refuses=knows_no_stop, write=lambda text, seed: "4</answer> and so on"
    ) as server:
        assert connect(server).demonstrate(PROBLEMS[:1], seed=0) == ["4"]


@pytest.mark.parametrize("policy", ["wait", "accept", "drop", "fail"])
@pytest.mark.parametrize(
    ("refuses", "words"),
    [
        (lambda body: (400, {"error": {"message": "no chat here"}}), "no chat here"),
        (lambda body: (422, {"detail": "prompts in Latin"}), "prompts in Latin"),
        (
            lambda body: (
                {"max_tokens", "max_completion_tokens"} & set(body)
                and (400, {"message": "a budget is not supported"})
            ),
            "a budget is not supported",
        ),
        (lambda body: (404, {"detail": "Not Found"}), "Not Found"),
        (lambda body: (501, {"error": "no chat in this build"}), "no chat in this"),
    ],
)
def test_what_cannot_be_left_out_ends_the_run_at_its_start(
    refuses, words, policy, connect
):
    with TeacherServer(refuses=refuses) as server:
        with pytest.raises(TeacherError, match=words):
            connect(server, policy)


@pytest.mark.parametrize("policy", ["accept", "drop", "wait"])
def test_a_request_that_is_refused_later_is_never_scored(policy, connect):
    with TeacherServer() as server:
        teacher = connect(server, policy)
        server.refuses = lambda body: (
            (400, {"detail": "no"}) if "step 3" in str(body) else None
        )
        scores = teacher.score(REQUESTS, seed=0)
    assert [score is None for score in scores] == [i == 3 for i in range(6)]


@pytest.mark.parametrize("status", [400, 403, 404, 405, 501])
def test_a_named_model_needs_no_list_of_models(status, connect):
    with TeacherServer(models=status) as server:
        assert None not in connect(server, name="teacher").score(REQUESTS, seed=0)
        with pytest.raises(TeacherError, match=f"HTTP {status}"):
            connect(server, "fail")


def test_a_wrong_name_is_told_by_the_server_where_there_is_no_list(connect):
    with TeacherServer(models=404) as server:
        with pytest.raises(TeacherError, match="model gpt-7 does not exist"):
            connect(server, name="gpt-7")


def cards(*pairs):
    return {"data": [{"id": name, "root": root} for name, root in pairs]}


@pytest.mark.parametrize(
    "models",
    [
        cards(("another", ""), ("teacher", "")),
        cards(("teacher", "/a"), ("adapter", "/b")),
        [{"id": "teacher"}, {"id": "another"}],
    ],
)
def test_one_of_several_models_must_be_named(models, connect, capsys):
    with TeacherServer(models=models) as server:
        with pytest.raises(UserError, match="served_name"):
            connect(server)
        connect(server, name="teacher")
    assert f"{server.url} serves teacher" in capsys.readouterr().err


def test_several_names_of_the_same_weights_are_one_model(connect, capsys):
    with TeacherServer(models=cards(("teacher", "/a"), ("alias", "/a"))) as server:
        connect(server)
    assert f"{server.url} serves teacher (/a)." in capsys.readouterr().err


@pytest.mark.parametrize("policy", ["wait", "accept", "drop", "fail"])
@pytest.mark.parametrize(
    ("status", "body"),
    [
        (429, {"error": {"message": "Check billing.", "code": "insufficient_quota"}}),
        (402, {"message": "Insufficient Balance"}),
        (429, {"error": {"message": "Budget has been exceeded! Current cost: 10"}}),
        (429, {"error": {"message": "Monthly spending limit reached"}}),
        (429, {"error": {"message": "Your account is not active"}}),
        (400, {"error": {"message": "budget_exceeded"}}),
        (403, {"detail": "this key may not"}),
        (401, {"error": "the key was revoked"}),
    ],
)
def test_an_account_that_is_not_served_ends_the_run(status, body, policy, connect):
    with TeacherServer() as server:
        teacher = connect(server, policy)
        server.refuses = lambda request: (status, body)
        with pytest.raises(Denied, match=f"HTTP {status}, [A-Za-z]"):
            teacher.score(REQUESTS, seed=0)


def test_outages_one_after_the_other_are_told_once(connect, caplog):
    with TeacherServer() as server:
        teacher = connect(server)
        for _ in range(2):
            server.go_away()
            threading.Timer(2.0, server.come_back).start()
            teacher.score(REQUESTS, seed=0)
    assert caplog.text.count("waits for its teacher") == 1
    assert caplog.text.count("is back") == 1


def come_back_when_missed(server: TeacherServer, caplog) -> None:
    """Brings the server back once the log says that it is away, in 20 s at most."""
    deadline = time.monotonic() + 20
    while "The run waits for" not in caplog.text and time.monotonic() < deadline:
        time.sleep(0.02)
    server.come_back()


@pytest.mark.parametrize(
    ("knob", "role"),
    [
        ("teacher.url", "teacher"),
        ("continuer.url", "continuer"),
        ("search.url", "search engine"),
        ("engine", "student"),
    ],
)
def test_a_server_that_is_away_is_named_by_what_it_is_for(
    knob, role, caplog, monkeypatch
):
    monkeypatch.setattr(transport_module, "_POLL", 0.1)
    monkeypatch.setattr(transport_module, "_LEAST_RETRIES", 0)
    options = flags.load_file("configs/default.py").teacher
    with options.unlocked():
        options.retries = 0
    with TeacherServer() as server:
        transport = make_transport(server.url, options, name="", knob=knob)
        transport.run([transport.connect])
        server.go_away()
        back = threading.Thread(target=come_back_when_missed, args=(server, caplog))
        back.start()
        transport.run([lambda: transport.fetch("/tokenizer_info")])
        back.join()
        transport.close()
    assert caplog.text.count(f"The run waits for its {role} (") == 1
    assert f"The {role} is back" in caplog.text
