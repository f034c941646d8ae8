"""Test-time rejection: the student drafts, the teacher's steps take the place of
rejected ones, and the gold answer plays no role."""

import dataclasses

import pytest
from fakes import (
    EOS,
    TOKENIZER,
    FakeTeacher,
    encode,
    exact,
    problem,
)

from ovd_jax.evaluation.attempts import evaluate, make_asks
from ovd_jax.evaluation.rejection import (
    BlindCollector,
    RejectionAtTestTime,
    batches_of_one_seed,
)
from ovd_jax.sampling.completion import Completion
from ovd_jax.tasks.arithmetic import ArithmeticTask, solve

QUESTION = "((3+4)*2)-5"
SOLUTION = "\n".join(solve(QUESTION))  # (7*2)-5, 14-5, #### 9
SLIP = "(7*2)-5\n15-5\n#### 10"
TASK = ArithmeticTask()


class Gold(ArithmeticTask):
    """A task that cannot reward: it has no gold answers to look at."""

    def rewards(self, problems, texts):
        raise AssertionError("a reward was asked for at test time")


def rest(prefix: str) -> str:
    return "".join(SOLUTION.splitlines(keepends=True)[prefix.count("\n") :])


def demonstrate(request, rng):
    return rest(request.prefix)


def stream(prompts, *, seed, samples=1, limits=None, draws=None):
    """A student that slips in the second step, but goes on rightly after another's."""
    for row, prompt in enumerate(prompts):
        text = TOKENIZER.decode(prompt).removeprefix(QUESTION + "=\n")
        said = rest(text) if text else SLIP
        tokens = (*encode(said), EOS)
        yield row, Completion(tokens, (0.0,) * len(tokens), True)


def solver(teacher, *, threshold=7, task=TASK, rounds=8, **changes):
    return RejectionAtTestTime(
        changes.get("stream", stream),
        task=task,
        make_teacher=lambda: teacher,
        tokenizer=TOKENIZER,
        threshold=threshold,
        max_replaced_steps=rounds,
        max_new_tokens=40,
        rows=changes.get("rows", 4),
        identity={},
        make_collector=changes.get("make_collector"),
    )


class Teacher(FakeTeacher):
    def metrics(self):
        return {"teacher_tokens_in": 30, "teacher_tokens_out": 6}


def run(teacher, *, answer="9", task=None, samples=1, **options):
    (result,) = evaluate(
        [problem(QUESTION, answer)], task=TASK, tokenizer=TOKENIZER, samples=samples,
        solver=solver(teacher, task=task or TASK, **options), seed=0,
    )  # fmt: skip
    return result


def test_a_rejected_step_is_the_teachers_and_the_student_goes_on():
    teacher = Teacher(exact, demonstrate)
    result = run(teacher)
    (attempt,) = result.attempts
    assert result.rewards == (1.0,)
    assert attempt.text == SOLUTION
    assert attempt.facts == {
        "tokens_from_teacher": len(encode("14-5\n")),
        "teacher_scores": 5,  # three steps, then the two that are new
        "teacher_demonstrations": 1,
        "teacher_tokens_in": 30,
        "teacher_tokens_out": 6,
    }


def test_who_collects_attempts_is_given_no_gold_answer():
    """Its tools and its teacher could be told them."""
    given = []

    class Collector(BlindCollector):
        def collect(self, problems, *args, **options):
            given.extend(problems)
            return super().collect(problems, *args, **options)

    made = solver(Teacher(exact, demonstrate), make_collector=Collector)
    gold = dataclasses.replace(problem(QUESTION, "9"), answers=("9",), solution="9")
    evaluate([gold], task=TASK, tokenizer=TOKENIZER, samples=2, solver=made, seed=0)
    assert given
    for each in given:
        assert (each.question, each.answer, each.solution) == (QUESTION, "", "")
        assert not any(each.golds)


@pytest.mark.parametrize(
    ("threshold", "text", "taught"),
    [
        (1, SLIP, 0),
        (2, SLIP, 0),
        (3, SOLUTION, 4),
        (9, SOLUTION, 4),
        (10, SOLUTION, 15),
    ],
)
def test_the_threshold_goes_from_the_student_alone_to_the_teacher_alone(
    threshold, text, taught
):
    (attempt,) = run(Teacher(exact, demonstrate), threshold=threshold).attempts
    assert attempt.text == text
    assert attempt.facts["tokens_from_teacher"] == taught


@pytest.mark.parametrize("answer", ["9", "10", "-3"])
def test_the_gold_answer_plays_no_role(answer):
    """Neither student nor teacher see it, no reward is asked for, and another gold
    changes the grade alone."""
    teacher = Teacher(exact, demonstrate)
    result = run(teacher, answer=answer, task=Gold())
    assert result.attempts[0].text == SOLUTION
    assert result.rewards == (float(answer == "9"),)
    asked = [r for call in teacher.scored + teacher.demonstrated for r in call]
    assert all("question" in dataclasses.asdict(request) for request in asked)
    assert {request.question for request in asked} == {QUESTION}


def test_a_step_that_was_accepted_is_not_scored_again():
    """With sampled scores a second vote could throw out what the first let pass."""
    votes = []

    def score(request, rng):
        votes.append((request.previous, request.text))
        return exact(request)

    run(Teacher(score, demonstrate))
    assert len(votes) == len(set(votes)) == 5


def test_samples_of_one_problem_have_scores_of_their_own():
    def score(request, rng):
        return rng.choice([0, 9])

    result = run(Teacher(score, demonstrate), samples=12)
    assert len({attempt.text for attempt in result.attempts}) > 1
    assert len({a.facts["tokens_from_teacher"] for a in result.attempts}) > 2


def test_one_that_the_teacher_does_not_judge_is_counted_as_it_is():
    result = run(Teacher(lambda request, rng: None, demonstrate))
    assert result.attempts[0].text == SLIP
    assert result.attempts[0].facts["unjudged"] == 1
    assert result.rewards == (0.0,)


def test_without_a_demonstration_the_student_s_own_stays():
    result = run(Teacher(exact, lambda request, rng: None), rounds=2)
    assert result.attempts[0].text == SLIP
    assert result.attempts[0].facts["tokens_from_teacher"] == 0
    assert result.attempts[0].facts["teacher_demonstrations"] == 2


def test_no_batch_has_a_prompt_twice():
    problems = [problem(q, "1") for q in ("1+1", "1+2", "1+1", "1+3")]
    asks = make_asks(
        problems, task=TASK, tokenizer=TOKENIZER, samples=2, seed=0, greedy=False
    )
    assert list(batches_of_one_seed(asks, 2)) == [[0, 2], [6], [1, 3], [7], [4], [5]]


def test_an_attempt_does_not_depend_on_those_beside_it():
    """So an evaluation that was ended and resumed gives what a whole one gives."""

    def writes(prompts, *, seed, samples=1, limits=None, draws=None):
        for row, (drawn,) in enumerate(draws):
            tokens = (*encode(f"{drawn}\n{drawn % 7}\n#### 1"), EOS)
            yield row, Completion(tokens, (0.0,) * len(tokens), True)

    def solved(questions, rows=4):
        teacher = Teacher(
            lambda request, rng: rng.choice([0, 9]),
            lambda request, rng: f"{rng.randrange(1000)}\n#### 2",
        )
        results = evaluate(
            [problem(q, "9") for q in questions], task=TASK, tokenizer=TOKENIZER,
            samples=3, solver=solver(teacher, stream=writes, rows=rows), seed=0,
        )  # fmt: skip
        return {r.problem.question: [a.text for a in r.attempts] for r in results}

    questions = ["1+1", "2+3", "1+1+1", "4-2", "(1+2)*3"]
    whole = solved(questions)
    assert len({text for texts in whole.values() for text in texts}) > 3
    for question in questions:
        assert solved([question])[question] == whole[question]
    for rows in (1, 2, 3):
        assert solved(questions[::-1], rows) == whole
