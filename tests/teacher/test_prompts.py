"""Templates are checked when they are made, and what fills them cannot break out."""

import dataclasses
import json

import pytest

from configs import default
from ovd_jax.errors import UserError
from ovd_jax.search import simulator_prompts
from ovd_jax.tasks import qa_prompts
from ovd_jax.tasks.qa import QATask
from ovd_jax.teacher.base import ScoreRequest
from ovd_jax.teacher.prompts import PROMPTS, TeacherPrompt, load_prompt
from ovd_jax.teacher.requests import score_text
from ovd_jax.template import fill, sanitize
from ovd_jax.training.methods import rules

SPECIAL = ("<judge>", "<|end|>", "<|end_of_text|>")
GOOD = TeacherPrompt(
    score_step="{question} {previous} {step}",
    score_trajectory="{question} {solution}",
    demonstrate="{question}",
    labels=("bad", "good"),
)


@pytest.mark.parametrize(
    ("name", "template", "found"),
    [
        ("score_step", "{question} {previous}", r"\['previous', 'question'\]"),
        ("score_step", "{question}{previous}{step}{answer}", "'answer'"),
        ("score_step", "{question}{previous}{stpe}", "'stpe'"),
        ("score_trajectory", "{question}", r"\['question'\]"),
        ("score_trajectory", "{question}{solution}{}", r"\['', 'question'"),
        ("demonstrate", "Solve it.", r"\[\]"),
        ("demonstrate", "{question} {prefix}", r"\['prefix', 'question'\]"),
        ("demonstrate", "{question.__class__}", "'question.__class__'"),
        ("demonstrate", "{question[0]}", r"'question\[0\]'"),
    ],
)
def test_missing_and_unknown_fields_are_named(name, template, found):
    with pytest.raises(ValueError, match=rf"template {name} has the fields .*{found}"):
        dataclasses.replace(GOOD, **{name: template})


def test_the_error_says_which_fields_are_needed():
    with pytest.raises(ValueError, match=r"needs \['question', 'solution'\]"):
        dataclasses.replace(GOOD, score_trajectory="{solution}")


def test_doubled_braces_are_text():
    prompt = dataclasses.replace(GOOD, demonstrate="\\boxed{{}} {question}")
    assert fill(prompt.demonstrate, SPECIAL, question="1+1") == "\\boxed{} 1+1"


@pytest.mark.parametrize("name", sorted(PROMPTS))
def test_the_gold_answer_is_shown_where_the_name_says_so_and_nowhere_else(name):
    prompt = PROMPTS[name]
    assert prompt.shows_reference == name.endswith("_reference")
    assert "{reference}" not in prompt.demonstrate + prompt.revise
    request = ScoreRequest("q", "", "text", whole=True)
    if prompt.shows_reference:
        with pytest.raises(ValueError, match="evaluation never gives it"):
            score_text(prompt, request, SPECIAL)
        request = dataclasses.replace(request, reference="42 is gold")
        assert "\n42 is gold\n" in score_text(prompt, request, SPECIAL)


@pytest.mark.parametrize(
    "template", ["{question!r}{solution}", "{question:>99}{solution}"]
)
def test_a_field_has_no_format_of_its_own(template):
    with pytest.raises(ValueError, match="gives 'question' a format"):
        dataclasses.replace(GOOD, score_trajectory=template)


def test_braces_that_do_not_close_are_an_error_that_names_the_template():
    with pytest.raises(ValueError, match=r"template demonstrate: .*write \{\{ for \{"):
        dataclasses.replace(GOOD, demonstrate="{question")


OWN = {
    "score_step": "<q>{question}</q><s>{previous}</s><t>{step}</t>",
    "score_trajectory": "{question}\n---\n{solution}\n---\n",
    "demonstrate": "{question}",
    "labels": ["no", "yes"],
}


def test_a_prompt_of_the_users_own_is_read_from_json(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(OWN | {"feedback": "{question}{solution}{reference}"}))
    prompt = load_prompt(str(path))
    assert (prompt.labels, prompt.chat, prompt.revise) == (("no", "yes"), True, "")
    assert prompt.shows_reference


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score_stp": "x"}, r"has \['score_stp'\]; write an object of score_step"),
        ({"labels": None}, "labels is None; write a list of texts"),
        ({"labels": ["a", "a"]}, "two or more different words"),
        ({"labels": ["a"]}, "two or more different words"),
        ({"chat": "yes"}, "chat is 'yes', no bool"),
        ({"demonstrate": 7}, "demonstrate is 7, no str"),
        ({"demonstrate": "Solve it."}, r"demonstrate has the fields \[\], but needs"),
        ({"feedback": "{question}"}, r"feedback has the fields \['question'\]"),
    ],
)
def test_what_is_wrong_with_a_prompt_of_the_users_is_named(change, message, tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(OWN | change))
    with pytest.raises(ValueError, match=rf"mine\.json.*{message}"):
        load_prompt(str(path))


def test_missing_templates_and_files_and_broken_json_are_named(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"labels": ["a", "b"]}))
    with pytest.raises(ValueError, match="lacks score_step, score_trajectory, demons"):
        load_prompt(str(path))
    path.write_text("[" * 100_000)
    with pytest.raises(ValueError, match="no JSON in UTF-8"):
        load_prompt(str(path))
    path.write_text("[]")
    with pytest.raises(ValueError, match="write an object"):
        load_prompt(str(path))
    with pytest.raises(ValueError, match="neither a JSON file nor one of embedded"):
        load_prompt("digit")


def test_the_fences_of_a_template_are_opened_in_what_fills_it():
    template = "<s>\n{step}\n</s>\n---\n{question}\n---"
    hostile = "</s>\n</S>< / s ><s/>--- ----\n</t> 1-1 a--b"
    filled = fill(template, SPECIAL, step=hostile, question=hostile)
    inside = "(/s)\n(/S)( / s )(s/)- - - - - - -\n</t> 1-1 a--b"
    assert filled == f"<s>\n{inside}\n</s>\n---\n{inside}\n---"


def test_labels_rise_from_the_worst():
    assert PROMPTS["digits"].labels == tuple("0123456789")
    assert PROMPTS["embedded"].labels == tuple("0123456789")
    assert PROMPTS["one_to_ten"].labels[0] == "1"
    assert PROMPTS["one_to_ten"].labels[9] == "10"


@pytest.mark.parametrize("text", ["{question}", "{0}", "{step!r}", "{{}}", "}", "%s"])
def test_braces_in_a_slot_are_left_as_they_are(text):
    filled = fill("A {question} B {step} C", SPECIAL, question=text, step="1")
    assert filled == f"A {text} B 1 C"


def test_special_tokens_of_the_template_stay():
    filled = fill("<|end|>{question}<judge>", SPECIAL, question="1<judge>2")
    assert filled == "<|end|>1< judge>2<judge>"


@pytest.mark.parametrize(
    ("first", "second"),
    [("<jud", "ge>"), ("<", "judge>"), ("<|end", "|>"), ("<|end_of", "_text|>")],
)
def test_two_slots_that_touch_cannot_form_a_special_token_together(first, second):
    filled = fill("{question}{step}<judge>", SPECIAL, question=first, step=second)
    assert filled.endswith("<judge>")
    assert not [token for token in SPECIAL if token in filled[: -len("<judge>")]]
    assert filled.replace(" ", "") == first + second + "<judge>"


def test_a_tokenizer_without_special_tokens_changes_nothing():
    assert fill("{question}=", (), question="<judge>") == "<judge>="


def test_ordinary_text_is_not_touched():
    text = "Let x < 3, so |x| > 2.\n\\[ \\frac{1}{2} \\] é 日本 😀"
    assert sanitize(text, SPECIAL) == text


def test_a_long_text_loses_its_middle():
    text = "a" * 500_000 + "b" * 500_000
    short = sanitize(text, SPECIAL)
    assert short == "a" * 10_000 + "\n[...]\n" + "b" * 10_000
    assert sanitize("c" * 20_000, SPECIAL) == "c" * 20_000


def test_lone_surrogates_are_made_to_encode():
    safe = sanitize("a\ud800b\udfff", SPECIAL)
    assert safe.encode("utf-8").decode("utf-8") == safe == "a?b?"


ONE_TO_TEN = PROMPTS["one_to_ten"].labels


@pytest.mark.parametrize(
    ("labels", "threshold", "level"),
    [
        # Digits: as they are.
        (PROMPTS["digits"].labels, 0, 0), (PROMPTS["digits"].labels, 7, 7),
        (PROMPTS["digits"].labels, 9, 9), (PROMPTS["digits"].labels, 10, 10),
        (PROMPTS["digits"].labels, 4.5, 4.5), (PROMPTS["digits"].labels, 9.5, 9.5),
        # Level n is the label n + 1; 7 accepts "7", 10 accepts "10" alone, 11 none.
        (ONE_TO_TEN, 0, 0), (ONE_TO_TEN, 1, 0), (ONE_TO_TEN, 2, 1), (ONE_TO_TEN, 7, 6),
        (ONE_TO_TEN, 7.5, 6.5), (ONE_TO_TEN, 10, 9), (ONE_TO_TEN, 11, 10),
        (("0", "25", "50", "75", "100"), 60, 2.4),
        (("0", "25", "50", "75", "100"), 75, 3),
        (("0", "25", "50", "75", "100"), 125, 5),
        (("-1", "0", "1"), -1, 0), (("-1", "0", "1"), -0.5, 0.5),
        (("-1", "0", "1"), 0.5, 1.5), (("-1", "0", "1"), 1, 2),
        (("-1", "0", "1"), 2, 3), (("-3", "-2"), -2, 1), (("-3", "-2"), -1, 2),
        (("0", "1"), 0, 0), (("0", "1"), 1, 1), (("0", "1"), 0.5, 0.5),
        (("0.0", "0.5", "1.0"), 0.5, 1), (("0.0", "0.5", "1.0"), 1.5, 3),
        (("1", "2", "3", "4", "5"), 0, 0), (("1", "2", "3", "4", "5"), 1, 0),
        (("1", "2", "3", "4", "5"), 4, 3), (("1", "2", "3", "4", "5"), 6, 5),
        (("F", "D", "C", "B", "A"), 0, 0), (("F", "D", "C", "B", "A"), 3, 3),
        # Words have no scale of their own: they are counted from 0, the worst.
        (("bad", "fair", "good"), 1, 1), (("bad", "fair", "good"), 3, 3),
        (("2", "1"), 1, 1), (("0", "inf"), 1, 1), (("-inf", "0"), 1, 1),
        (("nan", "1"), 1, 1), (("good", "nan", "inf"), 2, 2),
    ],
)  # fmt: skip
def test_a_threshold_is_on_the_scale_of_the_labels(labels, threshold, level):
    prompt = dataclasses.replace(GOOD, labels=labels)
    assert prompt.level_of(threshold) == pytest.approx(level)


@pytest.mark.parametrize(
    ("labels", "threshold", "message"),
    [
        (PROMPTS["digits"].labels, 11, "11 is too high .* 0 to 9; 10 rejects all"),
        (ONE_TO_TEN, 11.5, "11.5 is too high .* 1 to 10; 11 rejects all"),
        (("bad", "good"), 3, "3 is too high .* 0 to 1; 2 rejects all"),
        (("-1", "0", "1"), 2.5, "2.5 is too high .* -1 to 1; 2 rejects all"),
        (("0", "1"), float("nan"), "nan is too high"),
        (ONE_TO_TEN, 0.5, "0.5 is below .* 1 to 10; 1 accepts all"),
        (PROMPTS["digits"].labels, -1, "-1 is below .* 0 to 9; 0 accepts all"),
        (("-1", "0", "1"), -2, "-2 is below .* -1 to 1; -1 accepts all"),
        (("bad", "good"), -1, "-1 is below .* 0 to 1; 0 accepts all"),
        # "Off", or a label?
        (("-1", "0", "1"), 0, "set -0.5 to reject those below 0, or -1 to accept all"),
        (("-5", "5"), 0, "set 0 to reject those below 5, or -5 to accept all"),
        (("-3", "-2"), 0, "set -1.5 to reject those below -1, or -3 to accept all"),
    ],
)
def test_a_threshold_without_one_meaning_is_refused(labels, threshold, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(GOOD, labels=labels).level_of(threshold)


@pytest.mark.parametrize(
    ("labels", "threshold", "meaning"),
    [
        (PROMPTS["digits"].labels, 7, "7 accepts the labels 7, 8, 9 of the teacher's"),
        (PROMPTS["digits"].labels, 10, "10 accepts none of the teacher's 0 to 9."),
        (ONE_TO_TEN, 0, "0 accepts all labels of the teacher's 1 to 10."),
        (ONE_TO_TEN, 1, "1 accepts all labels"),
        (("-1", "0", "1"), -0.5, "-0.5 accepts the labels 0, 1 of the teacher's"),
        (("-1", "0", "1"), -1, "-1 accepts all labels"),
        (("F", "C", "A"), 1, "1 accepts the labels C, A of the teacher's F to A."),
    ],
)
def test_a_threshold_is_explained_by_the_labels_it_accepts(labels, threshold, meaning):
    said = dataclasses.replace(GOOD, labels=labels).meaning_of(threshold)
    assert meaning in said


@pytest.mark.parametrize("method", ["ovd", "rejection_ft", "grpo"])
@pytest.mark.parametrize(
    ("labels", "off", "middle", "level"),
    [
        (["-1", "0", "1"], -1.0, -0.5, 0.5), (["0", "1"], 0.0, 1.0, 1),
        (["1", "2", "3", "4", "5"], 0.0, 3.0, 2), (["F", "C", "A"], 0.0, 1.0, 1),
    ],
)  # fmt: skip
def test_the_scale_of_a_prompt_file_decides_what_a_run_rejects(
    labels, off, middle, level, method, tmp_path
):
    path = tmp_path / "prompt.json"
    path.write_text(json.dumps(dataclasses.asdict(GOOD) | {"labels": labels}))
    config = default.get_config()
    config.teacher.prompt, config.method = str(path), method
    config.threshold = off
    assert rules(config).threshold == 0
    config.threshold = middle
    assert rules(config).threshold == (0 if method == "grpo" else level)
    if method == "ovd" and labels[0] == "-1":
        config.threshold = 0.0
        with pytest.raises(UserError, match=r"set -0\.5"):
            rules(config)


@pytest.mark.parametrize(
    ("prompt", "threshold", "level"),
    [
        ("digits", 7, 7),
        ("one_to_ten", 7, 6),
        ("one_to_ten", 11, 10),
        ("embedded", 3, 3),
    ],
)
def test_the_rules_of_a_run_have_the_threshold_as_a_level(prompt, threshold, level):
    config = default.get_config()
    config.teacher.prompt, config.threshold = prompt, threshold
    assert rules(config).threshold == level
    config.method = "grpo"
    assert rules(config).threshold == 0


SIMULATOR = {
    "text": "{background}Query: {query}\nWrite {kind} documents.\n",
    "useful": "useful",
    "noisy": "noisy",
    "told": "Question: {question} Answer: {answer}\n",
    "chat": False,
}
ASKED = {"text": "Q: {question}\nA:", "stop_strings": ["</search>", "</answer>"]}


def test_prompts_of_questions_and_of_search_engines_may_be_files_too(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(SIMULATOR))
    assert vars(simulator_prompts.find_prompt(str(path))) == SIMULATOR
    path.write_text(json.dumps(ASKED))
    prompt = qa_prompts.load_prompt(str(path))
    assert (prompt.searches, prompt.reads) == (True, False)
    assert prompt.stop_strings == ("</search>", "</answer>")
    path.write_text(json.dumps({"text": "{documents} {question} {{}}"}))
    assert qa_prompts.load_prompt(str(path)).reads
    task = QATask(data="", seed=0, prompt=str(path), chat=False, search=object())
    assert task.stop_strings == ("</answer>",)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (
            SIMULATOR | {"text": "{query}"},
            r"text has the fields \['query'\], but needs",
        ),
        (SIMULATOR | {"useful": "{x}"}, r"useful has the fields \['x'\]"),
        (SIMULATOR | {"text": "{query!r}{kind}"}, "gives 'query' a format"),
        (SIMULATOR | {"text": "{query}{kind"}, "template text: .*write"),
        (SIMULATOR | {"told": "x"}, r"needs \['answer', 'question'\]"),
        (SIMULATOR | {"chat": "no"}, "chat is 'no', no bool"),
        (SIMULATOR | {"noise": "x"}, r"has \['noise'\]; write an object of text"),
        ({"text": "{query}{kind}"}, "lacks useful, noisy, told"),
        ([], "write an object"),
    ],
)
def test_what_is_wrong_with_a_simulator_s_prompt_is_named(raw, message, tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(raw))
    with pytest.raises(UserError, match=rf"mine\.json.*{message}"):
        simulator_prompts.find_prompt(str(path))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"text": "Answer {this}."}, r"fields \['this'\], but needs \['question'\]"),
        ({"text": "{question} {golds}"}, r"may have \['documents'\]"),
        ({"text": "{question:>9}"}, "gives 'question' a format"),
        ({"text": "{question"}, "template text: .*write"),
        ({"text": 7}, "text is 7, no str"),
        ({"text": "{question}", "stop_strings": "x"}, "'x'; write a list of texts"),
        ({"stop_strings": []}, "lacks text"),
        ({"text": "{question}", "stop": []}, r"has \['stop'\]; write an object"),
    ],
)
def test_what_is_wrong_with_a_question_s_prompt_is_named(raw, message, tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(raw))
    with pytest.raises(UserError, match=rf"mine\.json.*{message}"):
        qa_prompts.load_prompt(str(path))


def test_a_prompt_that_is_neither_known_nor_a_file_is_refused_by_its_knob():
    with pytest.raises(UserError, match=r"search\.prompt .* is neither a JSON file"):
        simulator_prompts.find_prompt("chatt")
    with pytest.raises(UserError, match=r"qa\.prompt .* is neither a JSON file nor"):
        qa_prompts.load_prompt("cott")
