"""Knobs of servers, searches and evaluation that no field shows: what they do."""

import pytest
from fakes import write_rows
from search_fakes import TOKENIZER
from teacher_server import TeacherServer
from wired import VALUES, config_of, values_of, walk

from ovd_jax import evaluate
from ovd_jax.errors import UserError
from ovd_jax.tasks.qa import QATask
from ovd_jax.wiring.env import make_dialogue, make_env, make_pool
from ovd_jax.wiring.search import make_search
from ovd_jax.wiring.servers import close
from ovd_jax.wiring.task import eval_sets, make_task
from ovd_jax.wiring.teacher import make_teacher


def test_scorer_and_continuer_are_asked_each_at_its_own_server(tmp_path):
    from ovd_jax.teacher.base import DemonstrationRequest, ScoreRequest

    with (
        TeacherServer(model="judge") as scorer,
        TeacherServer(model="writer", write=lambda text, seed: "4") as continuer,
    ):
        config = config_of(**{
            "teacher.url": scorer.url, "teacher.served_name": "judge",
            "continuer.url": continuer.url, "continuer.served_name": "writer",
            "teacher.cache": str(tmp_path),
        })  # fmt: skip
        teacher = make_teacher(config)
        scorer.bodies.clear()
        continuer.bodies.clear()
        teacher.score([ScoreRequest("2+2", "", "4", True)], seed=0)
        assert scorer.bodies
        assert not continuer.bodies
        assert "from 0 to 9" in str(scorer.bodies)  # the prompt `digits`
        scorer.bodies.clear()
        teacher.demonstrate([DemonstrationRequest("2+2", "")], seed=0)
        teacher.close()
        (body,) = continuer.bodies
        assert not scorer.bodies
        assert (body["model"], body["temperature"]) == ("writer", 0.86)
        assert body.get("max_tokens", body.get("max_completion_tokens")) == 82
        assert list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize("server", ["teacher", "search"])
def test_servers_get_their_own_keys_and_so_many_requests(server, monkeypatch):
    monkeypatch.setenv("OVD_KEY_TEACHER", "key-teacher")
    monkeypatch.setenv("OVD_KEY_SEARCH", "key-search")
    options = {f"{name}.api_key_env": f"OVD_KEY_{name.upper()}"
               for name in ("teacher", "search")}  # fmt: skip
    with TeacherServer(key=f"key-{server}", write=lambda text, seed: "x") as listening:
        options |= {f"{server}.url": listening.url, "search.backend": "simulated"}
        config = config_of(**options)
        if server == "teacher":
            made = make_teacher(config)
        else:
            made = make_search(config, training=False)
        found = values_of(made, "max_concurrency")
        made.close()
    assert VALUES[f"{server}.max_concurrency"] in found


@pytest.mark.parametrize("policy", ["wait", "drop"])
def test_a_request_that_fails_is_repeated_for_ever_where_the_run_waits(policy, server):
    config = config_of(**{"teacher.url": server.url, "teacher.on_failure": policy})
    teacher = make_teacher(config)
    teacher.close()
    assert values_of(teacher, "wait") == [policy == "wait"]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("backend", ["simulated", "none"])
def test_golds_are_for_a_simulator_in_training(backend, training, server):
    config = config_of(**{"search.backend": backend, "search.url": server.url})
    engine = make_search(config, training=training)
    pool = make_pool(config, training=True)
    env = make_env(config, None, TOKENIZER)
    dialogue = make_dialogue(config, env, TOKENIZER, pool, training=training)
    close(engine, pool)
    assert values_of(engine, "with_golds") == [training]
    shown = values_of(dialogue, "with_golds")
    assert shown[-1] == (training and backend == "simulated")


def test_a_simulator_is_asked_at_its_server(server, tmp_path):
    from ovd_jax.search.base import Query

    config = config_of(**{
        "search.backend": "simulated", "search.url": server.url,
        "search.served_name": "teacher", "search.cache": str(tmp_path),
        "teacher.url": "http://127.0.0.1:9/v1",
    })  # fmt: skip
    engine = make_search(config, training=False)
    server.bodies.clear()
    engine.search([Query("who?")], seeds=[0])
    engine.close()
    (body,) = server.bodies
    assert "prompt" in body  # the prompt `plain` is no chat
    assert (body["model"], body["temperature"]) == ("teacher", 0.76)
    assert list(tmp_path.rglob("*.json"))


def test_sets_are_evaluated_as_their_knobs_say(tmp_path):
    rows = "".join(
        f'{{"id": "{n}", "question": "q{n}?", "answers": ["a"]}}\n' for n in range(20)
    )
    for name in ("one", "two"):
        (tmp_path / f"{name}.jsonl").write_text(rows)
    config = config_of(data=str(tmp_path), eval_sets=("one", "two@3"), eval_problems=9)
    task = QATask(data=str(tmp_path / "one.jsonl"), seed=0, chat=False)
    one, two = eval_sets(config, task)
    assert (one.name, one.samples, two.samples) == ("one", VALUES["eval_samples"], 3)
    assert len(one.problems) == len(two.problems) == 9
    assert evaluate.temperature(config, one) == VALUES["eval_temperature"]
    with config.unlocked():
        config.eval_temperature = 0.0
    assert evaluate.temperature(config, two) == VALUES["eval_sampled_temperature"]


def test_attempts_are_kept_where_the_knob_says(tmp_path):
    cache = evaluate.open_cache(config_of(eval_cache=str(tmp_path)))
    cache.put({"a": 1}, {"b": 2})
    assert list(tmp_path.rglob("*.json"))
    assert evaluate.open_cache(config_of(eval_cache="none")) is None


def test_attempts_are_rejected_and_kept_by_the_threshold_of_evaluation(made):
    found = values_of(made("rejecting"), "threshold")
    assert len(found) > 1  # of the solver, and of what its attempts are kept under
    assert set(found) == {VALUES["test_threshold"]}


def test_a_served_student_is_the_one_at_the_engine(made, server):
    made("direct")
    server.bodies.clear()
    stream = next(value for name, value in walk(made("direct")) if name == "stream")
    list(stream([[1, 2]], seed=0))
    (body,) = server.bodies
    assert (body["temperature"], body["top_p"]) == (0.5, VALUES["top_p"])
    assert body["max_tokens"] == VALUES["max_new_tokens"]
    assert body["top_k"] == VALUES["top_k"]
    assert body["model"] == VALUES["engine_served_name"]


@pytest.mark.parametrize(
    ("knob", "name"),
    [
        ("teacher.url", "teacher.served_name"),
        ("continuer.url", "continuer.served_name"),
        ("search.url", "search.served_name"),
        ("engine", "engine_served_name"),
    ],
)
def test_one_of_several_models_is_named_by_the_knob_of_its_server(knob, name):
    from ovd_jax.wiring.servers import make_transport

    models = [{"id": "one"}, {"id": "two"}]
    options = config_of().teacher
    with TeacherServer(models=models) as listening:
        for served, refused in (("", True), ("two", False)):
            transport = make_transport(listening.url, options, name=served, knob=knob)
            try:
                if refused:
                    with pytest.raises(UserError, match=f"set config.{name}\\."):
                        transport.run([transport.connect])
                else:
                    transport.run([transport.connect])
            finally:
                transport.close()


def test_the_knob_of_a_continuer_is_told_where_its_server_has_several_models():
    models = [{"id": "one"}, {"id": "two"}]
    with TeacherServer() as scorer, TeacherServer(models=models) as continuer:
        urls = {"teacher.url": scorer.url, "continuer.url": continuer.url}
        with pytest.raises(UserError, match=r"set config\.continuer\.served_name\."):
            make_teacher(config_of(**urls, **{"teacher.served_name": ""}))


def test_a_task_is_of_its_knobs(tmp_path):
    for name in ("train", "test"):
        rows = [
            {"id": str(n), "question": f"{name}{n} " + "x" * 9 * n, "answers": ["a"]}
            for n in range(12)
        ]
        write_rows(tmp_path / f"{name}.jsonl", rows)

    def orders(**changes):
        files = {"data": "train.jsonl", "held_out_data": "test.jsonl"}
        files = {knob: str(tmp_path / name) for knob, name in files.items()}
        knobs_of_it = {"task": "qa", "max_prompt_tokens": 999, **files} | changes
        task = make_task(config_of(**knobs_of_it), TOKENIZER)
        assert task.held_out(3)[0].question.startswith("test")
        problem, *_ = found = task.problems(0, 12)
        assert problem.question.startswith("train")
        assert task.prompt(problem).startswith("Answer") == ("qa.prompt" in changes)
        return [x.question for x in found]

    assert orders(seed=1) != orders(seed=2)
    with pytest.warns(UserWarning, match="max_prompt_tokens=64"):
        assert len(set(orders(max_prompt_tokens=64))) == 6
    assert len(set(orders(seed=1))) == 12
    assert orders(seed=1, **{"qa.prompt": "direct"}) == orders(seed=1)
    with pytest.raises(UserError, match="chat template"):
        orders(prompt_template="chat")
