"""Steps in tokens and in characters; who is asked what, and who is accepted."""

import dataclasses
import itertools
import random

import pytest
from fakes import (
    EOS,
    TOKENIZER,
    FakeStudent,
    FakeTeacher,
    collector,
    encode,
    problem,
    rules,
    verdict,
)
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from ovd_jax.rollout.collect import Collector
from ovd_jax.rollout.judge import score_requests
from ovd_jax.rollout.trajectory import make_trajectory
from ovd_jax.tasks.arithmetic import ArithmeticTask
from ovd_jax.tasks.base import Problem, steps
from ovd_jax.teacher.base import ScoreRequest

QUESTION = "((3+4)*2)-5"
PROBLEM = problem(QUESTION, "9")
RIGHT = "(7*2)-5\n14-5\n#### 9"
WRONG = "(7*2)-5\n15-5\n#### 10"
PIECES = ("7*2\n", "14-5\n", "é\n", "日本語\n", "\n", "\n\n", "😀😀\n1", "#### 9", "x")


@pytest.fixture(scope="module")
def bpe():
    """Byte-level BPE whose merges straddle newlines and cut characters in pieces."""
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<eos>", "<tool>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["7*2\n14-5\n#### 9 日本語\n1"] * 9, trainer)
    more = {"eos_token": "<eos>", "additional_special_tokens": ["<tool>"]}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **more)


def make(tokenizer, tokens):
    return make_trajectory(
        tokens,
        [0.0] * len(tokens),
        [False] * len(tokens),
        stopped=True,
        decode=lambda ids: tokenizer.decode(ids, skip_special_tokens=True),
        task=ArithmeticTask(),
    )


def byte_owners(tokenizer, tokens, text) -> list[int]:
    """For each token the step that holds its first byte, by counting bytes."""
    sizes = [
        len(step.encode()) for step in steps(text, ArithmeticTask().step_ends(text))
    ]
    owner_of_byte = [step for step, size in enumerate(sizes) for _ in range(size)]
    owner_of_byte.append(len(sizes) - 1)  # what follows the text
    owners, position = [], 0
    for token in tokenizer.convert_ids_to_tokens(tokens):
        owners.append(owner_of_byte[position])
        position += 0 if token in tokenizer.all_special_tokens else len(token)
    return owners


def test_every_token_belongs_to_the_step_in_which_it_begins(bpe):
    rng = random.Random(0)
    straddling = cut = 0
    for _ in range(200):
        text = "".join(rng.choices(PIECES, k=rng.randint(1, 9)))
        tokens = [*bpe(text)["input_ids"], bpe.eos_token_id]
        result = make(bpe, tokens)
        assert result.text == "".join(result.step_texts) == text
        ends = (0, *result.step_ends)
        assert list(ends) == sorted(ends)
        owners = [
            step
            for step, (start, end) in enumerate(itertools.pairwise(ends))
            for _ in range(start, end)
        ]
        assert owners == byte_owners(bpe, tokens, text)
        pieces = bpe.convert_ids_to_tokens(tokens)
        straddling += sum("Ċ" in piece[:-1] for piece in pieces)
        cut += sum("\ufffd" in bpe.decode([token]) for token in tokens)
    assert straddling > 100
    assert cut > 100


def test_characters_of_several_byte_tokens_are_not_counted_before_they_are_whole():
    """By byte fallback the first bytes of an emoji read as one U+FFFD each."""
    vocabulary = {f"<0x{byte:02X}>": byte for byte in range(256)}
    vocabulary |= {"<unk>": 256, "<eos>": 257, "1": 258, "\n": 259}
    model = models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True)
    raw = Tokenizer(model)
    raw.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<eos>")
    tokens = [*tokenizer("😀\n1", add_special_tokens=False)["input_ids"], 257]
    assert len(tokens) == 4 + 3
    assert make(tokenizer, tokens).step_ends == (5, 7)


def test_special_tokens_say_nothing_and_belong_to_the_step_around_them(bpe):
    tool, eos = bpe.convert_tokens_to_ids("<tool>"), bpe.eos_token_id
    (x,), (newline,) = bpe("x")["input_ids"], bpe("\n")["input_ids"]
    result = make(bpe, [x, tool, newline, tool, x, eos])
    assert result.text == "x\nx"
    assert result.step_texts == ("x\n", "x")
    assert result.step_ends == (3, 6)


def test_an_empty_text_is_one_empty_step_that_holds_the_end_token(bpe):
    result = make(bpe, [bpe.eos_token_id])
    assert (result.text, result.step_texts, result.step_ends) == ("", ("",), (1,))


def test_an_end_token_after_the_last_newline_is_no_step_of_its_own(bpe):
    (newline,) = bpe("\n")["input_ids"]
    assert make(bpe, [newline, bpe.eos_token_id]).step_ends == (2,)


@pytest.mark.parametrize("granularity", ["trajectory", "step", "hybrid"])
def test_the_teacher_is_asked_for_steps_the_whole_or_both(granularity):
    text_of = make(TOKENIZER, [*encode(RIGHT), EOS])
    by_step = [
        ScoreRequest(QUESTION, "", "(7*2)-5\n", whole=False),
        ScoreRequest(QUESTION, "(7*2)-5\n", "14-5\n", whole=False),
        ScoreRequest(QUESTION, "(7*2)-5\n14-5\n", "#### 9", whole=False),
    ]
    whole = [ScoreRequest(QUESTION, "", RIGHT, whole=True)]
    expected = {"trajectory": whole, "step": by_step, "hybrid": by_step + whole}
    assert score_requests(PROBLEM, text_of, granularity) == expected[granularity]


def collect(teacher, write, problems=(PROBLEM,), *, seed=0, **changes):
    student = FakeStudent(write)
    return collector(teacher, **changes).collect(problems, student, seed=seed)


def right_then_wrong(prompt, sample, rng):
    return (RIGHT, WRONG)[sample]


@pytest.mark.parametrize(
    ("granularity", "steps", "whole", "values"),
    [
        ("trajectory", ((), ()), (9.0, 1.0), (9.0, 1.0)),
        ("step", ((9.0, 9.0, 9.0), (9.0, 2.0, 9.0)), None, (9.0, 2.0)),
        ("hybrid", ((9.0, 9.0, 9.0), (9.0, 2.0, 9.0)), (9.0, 1.0), (9.0, 1.0)),
    ],
)
def test_scores_reach_the_trajectory_that_they_are_of(
    granularity, steps, whole, values
):
    def score(request, rng):
        if request.whole:
            return 9 if request.text == RIGHT else 1
        return 2 if request.text == "15-5\n" else 9

    (group,) = collect(FakeTeacher(score), right_then_wrong, granularity=granularity)
    verdicts = [rollout.verdict for rollout in group.rollouts]
    assert tuple(tuple(s.value for s in v.steps) for v in verdicts) == steps
    assert tuple(v.value for v in verdicts) == values
    wholes = tuple(v.whole and v.whole.value for v in verdicts)
    assert wholes == (whole or (None, None))


def test_accepted_trajectories_are_left_as_they_are_and_no_demonstration_is_asked():
    teacher = FakeTeacher()
    (group,) = collect(teacher, lambda *_: RIGHT)
    for rollout in group.rollouts:
        assert rollout.accepted
        assert not rollout.replaced
        assert rollout.final is rollout.student
        assert rollout.student.tokens == (*encode(RIGHT), EOS)
        assert rollout.student.logprobs == tuple(-float(i + 1) for i in range(15))
        assert rollout.reward_before == rollout.reward_after == 1.0
    assert not any(teacher.demonstrated)


@pytest.mark.parametrize(("threshold", "accepted"), [(0, True), (10, False)])
def test_threshold_0_is_plain_grpo_and_10_asks_the_teacher_for_everything(
    threshold, accepted
):
    teacher = FakeTeacher(score=lambda request, rng: 0 if accepted else 9)
    (group,) = collect(teacher, right_then_wrong, threshold=threshold)
    assert [rollout.accepted for rollout in group.rollouts] == [accepted] * 2
    assert [rollout.reward_before for rollout in group.rollouts] == [1.0, 0.0]
    assert bool(teacher.demonstrated) is not accepted


def test_a_threshold_above_the_teacher_s_scale_is_refused():
    with pytest.raises(ValueError, match="scores of this teacher, 0 to 9; 10 rejects"):
        collector(FakeTeacher(), threshold=11)
    collector(FakeTeacher(), threshold=11, granularity="none")  # nothing is scored


def test_score_or_incorrect_rejects_a_wrong_answer_that_the_teacher_likes():
    flatterer = FakeTeacher(score=lambda request, rng: 9)
    (group,) = collect(flatterer, right_then_wrong, rejection="score_or_incorrect")
    assert [rollout.accepted for rollout in group.rollouts] == [True, False]


def test_soft_acceptance_draws_for_each_trajectory_from_the_seed():
    """A score of 7 at beta 2 is kept with probability exp(-1)."""
    soft = collector(FakeTeacher(), rejection="soft")
    many = [verdict(7, value=7.0)] * 5000
    accepted = soft.judge.accepts(many, [0.0] * 5000, seed=1)
    assert sum(accepted) / 5000 == pytest.approx(0.3679, abs=0.02)
    assert accepted == soft.judge.accepts(many, [0.0] * 5000, seed=1)
    assert accepted != soft.judge.accepts(many, [0.0] * 5000, seed=2)


def test_groups_and_samples_keep_their_order():
    problems = [problem("3+4", "7"), problem("9-1", "8"), problem("2*3", "6")]
    answers = {"3+4=\n": "#### 7", "9-1=\n": "#### 8", "2*3=\n": "#### 6"}

    def write(prompt, sample, rng):
        return answers[prompt] if sample != 1 else "#### 5"

    groups = collect(FakeTeacher(), write, problems, samples=3, threshold=0)
    assert [group.problem for group in groups] == problems
    for group in groups:
        prompt = group.problem.question + "=\n"
        assert group.prompt_tokens == encode(prompt)
        texts = [rollout.student.text for rollout in group.rollouts]
        assert texts == [answers[prompt], "#### 5", answers[prompt]]
        assert [r.reward_before for r in group.rollouts] == [1.0, 0.0, 1.0]


def test_completions_that_were_cut_are_marked():
    student = FakeStudent(lambda *_: RIGHT, max_new_tokens=10)
    only_sampled = collector(FakeTeacher(), threshold=0)
    (group,) = only_sampled.collect([PROBLEM], student, seed=0)
    assert [r.student.stopped for r in group.rollouts] == [False, False]
    assert group.rollouts[0].student.text == "(7*2)-5\n14-"
    assert group.rollouts[0].student.step_ends == (8, 10)


def noisy(seed, **changes):
    """A collection in which student, teacher and acceptance all draw at random."""
    teacher = FakeTeacher(
        score=lambda request, rng: rng.randint(0, 9),
        demonstrate=lambda request, rng: rng.choice((RIGHT, WRONG, None)),
    )

    def write(prompt, sample, rng):
        return rng.choice((RIGHT, WRONG, "#### 9"))

    return collect(
        teacher, write, [PROBLEM] * 4, seed=seed, samples=4, rejection="soft", **changes
    )


@pytest.mark.parametrize("replacement", ["trajectory", "suffix", "step"])
def test_a_collection_is_a_function_of_its_seed(replacement):
    first = noisy(3, replacement=replacement)
    assert first == noisy(3, replacement=replacement)
    assert first != noisy(4, replacement=replacement)
    replaced = [rollout.replaced for group in first for rollout in group.rollouts]
    assert any(replaced)
    assert not all(replaced)


@pytest.mark.parametrize("replacement", ["trajectory", "suffix", "step"])
def test_the_teacher_never_sees_the_gold_answer(replacement):
    gold = "GOLD"
    secret = Problem("p", QUESTION, answer=gold, source=gold, solution=gold)
    teacher = FakeTeacher(
        score=lambda request, rng: 0, demonstrate=lambda request, rng: RIGHT
    )
    collect(
        teacher, lambda *_: WRONG, [secret], replacement=replacement,
        granularity="hybrid", credit="hybrid",
    )  # fmt: skip
    assert len(teacher.demonstrated) == 3
    for request in itertools.chain(*teacher.scored, *teacher.demonstrated):
        assert request.question == QUESTION
        assert gold not in str(dataclasses.asdict(request))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"granularity": "token"}, "granularity 'token' is not one of trajectory, st"),
        ({"replacement": "prefix"}, "replacement 'prefix' is not one of"),
        ({"credit": "token"}, "credit 'token' is not one of"),
        ({"rejection": "hard"}, "rejection 'hard' is not one of score, score_or_inc"),
        ({"step_aggregation": "max"}, "step_aggregation 'max' is not one of min, mean"),
        ({"granularity": "trajectory", "replacement": "step"}, "'step' needs the sco"),
        ({"granularity": "trajectory", "credit": "step"}, "credit 'step' needs the s"),
    ],
)
def test_rules_that_cannot_work_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        rules(**changes)


@pytest.mark.parametrize("shows", [True, False])
def test_documents_cut_in_the_prompts_of_a_step_are_counted(shows):
    class Documents(ArithmeticTask):
        shows_documents = shows

        def documents_cut(self, problem):
            return len(problem.question)

    made = Collector(
        task=Documents(), teacher=FakeTeacher(), tokenizer=TOKENIZER, rules=rules()
    )
    student = FakeStudent(lambda text, sample, rng: "7")
    problems = [problem("3+4", "7"), problem("3+14", "17")]
    groups = made.collect(problems, student, seed=0)
    assert made.metrics(groups).get("documents_cut") == (7.0 if shows else None)
    assert made.metrics(groups).get("documents_cut") == (0.0 if shows else None)
