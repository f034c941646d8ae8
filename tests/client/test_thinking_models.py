"""Judges that think or give no bare label, behind a server."""

import itertools

import pytest
from served_judges import PROBLEMS, REQUESTS, answers
from teacher_server import TeacherServer

from ovd_jax.errors import TeacherError, UserError


class Peaked(TeacherServer):
    """Puts all but a little of the probability on one token, or on one digit."""

    def __init__(self, first, **options):
        super().__init__(**options)
        self.vocabulary = (*self.vocabulary, first)
        self.first = first

    def next_probs(self, text):
        rest = 1e-4 / (len(self.vocabulary) - 1)
        probs = dict.fromkeys(self.vocabulary, rest)
        return probs | {self.first: 1 - 1e-4}


THOUGHT = "Okay, so the user wants a digit.</think>\n\n7"


class Reasons(TeacherServer):
    """Tells in a field of its own that its model thought."""

    def answer(self, body, chat):
        answer = super().answer(body, chat)
        answer["choices"][0]["message"]["reasoning_content"] = "Okay"
        return answer


class Template(TeacherServer):
    """Shows the end of its prompt where asked, as vLLM does."""

    def __init__(self, *tokens, **options):
        super().__init__(**options)
        self.tokens = tokens

    def answer(self, body, chat):
        answer = super().answer(body, chat)
        if "prompt_logprobs" in body:
            places = [
                {str(i): {"logprob": -1.0, "decoded_token": token}}
                for i, token in enumerate(self.tokens)
            ]
            answer["prompt_logprobs"] = [None, *places]
        return answer


@pytest.mark.parametrize(
    "server",
    [
        Template("<|im_start|>", "<think>", "\n"), Template("\n", "<", "think", ">"),
        Template("[THINK]"), Peaked("<think>"), Peaked("[THINK]"),
        Peaked("<|channel|>"),
        Peaked("Okay", write=answers(THOUGHT)),
        Peaked("<", write=answers("<think>\nOkay")),
        Reasons(), Reasons(without=("logprobs", "constraint")),
        TeacherServer(write=answers(THOUGHT)),
        TeacherServer(without=("logprobs", "constraint"), write=answers("<think>So")),
    ],
)  # fmt: skip
def test_a_judge_that_thinks_is_refused_with_the_cause(server, connect):
    with server:
        with pytest.raises(UserError, match="is a thinking model"):
            connect(server)
        teacher = connect(server, judges=False)  # it may still write
        if "</think>" in server.write("", 0):
            assert teacher.demonstrate(PROBLEMS, seed=0) == ["7", "7"]
            assert teacher.feedback(REQUESTS[:1], seed=0) == ["7"]


@pytest.mark.parametrize(
    "server",
    [
        Peaked("7", write=answers(THOUGHT)),  # where it does not think
        Template("<think>", "\n\n", "</think>", "\n\n"),
        Template("<|im_start|>", "assistant", "\n"),
        TeacherServer(without=("logprobs", "constraint"), write=answers(THOUGHT)),
        TeacherServer(write=answers("I think that it is right. <b>7</b>")),
    ],
)
def test_one_whose_score_can_be_read_is_not(server, connect):
    with server:
        assert None not in connect(server).score(REQUESTS, seed=0)


@pytest.mark.parametrize("prompt", ["turns", "digits"])
def test_thoughts_that_belong_to_the_form_stay(prompt, connect):
    """Where the prompt asks for them, or all turns of a conversation have them."""
    text = "<think> So </think>\n<answer> 4 "
    with TeacherServer(write=answers(text)) as server:
        teacher = connect(
            server, prompt=prompt, judges=False, thoughts=prompt == "digits"
        )
        assert teacher.demonstrate(PROBLEMS[:1], seed=0) == [text]


def test_a_thought_that_never_ends_is_no_demonstration(connect):
    with TeacherServer(write=answers("<think>So")) as server:
        teacher = connect(server, judges=False)
        assert teacher.demonstrate(PROBLEMS[:1], seed=0) == [None]


def test_probability_outside_of_the_labels_is_warned_of(connect, caplog):
    with Peaked("The") as server:
        teacher = connect(server)
        teacher.score(REQUESTS, seed=0)
        teacher.score(REQUESTS, seed=1)
    assert caplog.text.count("score_outside_mass 1.00") == 1
    caplog.clear()
    with Peaked("7") as server:
        connect(server).score(REQUESTS, seed=0)
    assert "score_outside_mass" not in caplog.text


@pytest.mark.parametrize(
    "dress", ["**7**", '{"score": 7}', "Score: 7/9", "7\nSo it is."]
)
def test_a_dressed_label_counts_where_no_probabilities_are_shown(dress, connect):
    with TeacherServer(
        without=("logprobs", "constraint"), write=answers(dress)
    ) as server:
        scores = connect(server).score(REQUESTS, seed=0)
    assert [score.value for score in scores] == [7.0] * 6


@pytest.mark.parametrize("policy", ["wait", "accept", "drop", "fail"])
@pytest.mark.parametrize("text", ["The step is right.", "7 or 8", ""])
def test_a_server_that_never_gives_a_label_ends_the_run(text, policy, connect):
    with TeacherServer(
        without=("logprobs", "constraint"), write=answers(text)
    ) as server:
        teacher = connect(server, policy)
        before = len(server.bodies)
        with pytest.raises(TeacherError, match="no score label") as caught:
            teacher.score(REQUESTS, seed=0)
        assert len(server.bodies) - before <= 5 * len(REQUESTS)
    assert repr(text) in str(caught.value)
    assert "teacher.prompt" in str(caught.value)


@pytest.mark.slow
def test_one_that_shows_no_label_among_its_likeliest_tokens_ends_it_too(connect):
    with Peaked("The", without=("constraint",)) as server:
        server.vocabulary = ("The", *"abcdefghijklmnopqrstuvw", *"0123456789")
        teacher = connect(server)
        with pytest.raises(TeacherError, match="the prompt must ask"):
            teacher.score(REQUESTS, seed=0)


@pytest.mark.parametrize("policy", ["wait", "drop", "accept"])
def test_an_answer_without_a_label_is_drawn_anew_and_then_left_to_the_policy(
    policy, connect
):
    tries = itertools.count()

    def write(text, seed):
        if "step 3" in text:
            return "I cannot say."
        if "step 4" in text:
            return "Hm." if next(tries) < 2 else "7"
        return "7"

    with TeacherServer(without=("logprobs", "constraint"), write=write) as server:
        teacher = connect(server, policy)
        teacher.score(REQUESTS[:1], seed=0)
        scores = teacher.score(REQUESTS, seed=0)
    values = [score and score.value for score in scores]
    assert values == [7, 7, 7, 9 if policy == "accept" else None, 7, 7]
