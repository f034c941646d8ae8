"""The made-up world: its facts, questions, turns, scores, texts and examples."""

import json
import random

import pytest
from fakes import write_rows

from configs import world_agent
from ovd_jax.errors import UserError
from ovd_jax.search.observation import observation
from ovd_jax.search.tags import TAGS
from ovd_jax.sft import encode
from ovd_jax.teacher.prompts import JUDGE_STEP
from ovd_jax.toy.data import load_problems
from ovd_jax.toy.tokenizers import world_tokenizer
from ovd_jax.toy.world import Fact, Need, Question, World, read_facts
from ovd_jax.toy.world_examples import judgement, read_conversations, world_examples
from ovd_jax.toy.world_turns import (
    State,
    graded_turns,
    hasty_turn,
    query_of,
    right_turn,
    score_turn,
    slip,
    turn,
)

MOTHER = Fact("Mira Sollan", "mother", "Tova Rendik")
BORN = Fact("Tova Rendik", "birthplace", "Velholm")
QUESTION = Question("Mira Sollan", ("mother", "birthplace"), "Velholm")


def after(*facts: Fact, queries=("mother of Mira Sollan",)) -> State:
    state = State(QUESTION)
    for query in queries:
        state.read(query, list(facts))
    return state


def answers(world: World, question: Question, rng: random.Random) -> list[str]:
    """The turns of who always does the right thing."""
    state, texts = State(question), []
    while not texts or query_of(texts[-1]):
        texts.append(right_turn(state))
        if query := query_of(texts[-1]):
            state.read(query, world.find(query, rng, 2))
    return texts


def test_a_world_is_a_function_of_its_seed():
    assert World(3).facts == World(3).facts
    assert not set(World(3).facts) & set(World(4).facts) >= set(World(3).facts)


def test_a_text_of_facts_reads_as_those_facts():
    facts = World().facts
    text = observation([fact.document for fact in facts], (), 10**6)
    assert set(read_facts(text)) == set(facts)


@pytest.mark.parametrize("hops", [1, 2])
def test_held_out_questions_share_no_fact_with_the_training_ones(hops):
    world = World()
    used = {
        split: {
            fact
            for question in world.questions(split, hops)
            for fact in question.follow(world.facts)[0]
        }
        for split in ("train", "eval")
    }
    assert used["train"]
    assert used["eval"]
    assert not used["train"] & used["eval"]


def test_facts_lead_to_the_answer_of_every_question():
    world = World()
    for question in world.questions("eval", 2):
        chain, need = question.follow(world.facts)
        assert need is None
        assert [fact.relation for fact in chain] == list(question.relations)
        assert chain[-1].value == question.answer


def test_a_question_names_its_first_subject_alone():
    assert QUESTION.text == "Where was the mother of Mira Sollan born?"


def test_problems_are_of_one_and_two_hops_alike():
    problems = load_problems("world", "eval")
    sources = [problem.source for problem in problems]
    assert sources.count("world_1hop") == sources.count("world_2hop") > 100
    asked = {problem.question for problem in load_problems("world", "train")}
    assert not asked & {problem.question for problem in problems}
    assert problems != load_problems("world:1", "eval")


@pytest.mark.parametrize("hops", [1, 2])
def test_right_turns_search_once_a_hop_and_find_the_answer(hops):
    world, rng = World(), random.Random(0)
    for question in rng.sample(world.questions("train", hops), 50):
        texts = answers(world, question, rng)
        assert len(texts) == hops + 1
        assert f"<answer> {question.answer} </answer>" in texts[-1]


def test_a_search_that_did_not_help_is_asked_in_other_words():
    state = State(QUESTION)
    first = right_turn(state)
    state.read(query_of(first), [])
    assert query_of(right_turn(state)) == "Who is the mother of Mira Sollan?"


@pytest.mark.parametrize(
    ("state", "text", "score"),
    [
        (State(QUESTION), right_turn(State(QUESTION)), 9),
        (after(MOTHER), turn(MOTHER.sentence, "search", "Tova Rendik born"), 9),
        (after(MOTHER, BORN), turn(BORN.sentence, "answer", "Velholm"), 9),
        (State(QUESTION), turn("I know.", "search", "the mother of Mira Sollan"), 7),
        (after(MOTHER), turn(BORN.sentence, "search", "Tova Rendik born"), 5),
        (State(QUESTION), turn("I know.", "search", QUESTION.text), 4),
        (State(QUESTION), turn("I know.", "search", "Mira Sollan"), 4),
        (after(), turn("I know.", "search", "mother of Mira Sollan"), 4),
        (after(MOTHER, BORN), turn("I know.", "search", "Tova Rendik born"), 3),
        (after(MOTHER), hasty_turn(after(MOTHER)), 1),
        (after(MOTHER), turn("I know.", "answer", "Velholm"), 1),
        (after(MOTHER), turn(MOTHER.sentence, "search", "Tova Sollan born"), 1),
        (after(MOTHER), "<think> I know. </think>\n<search> Tova Rendik born", 0),
        (after(MOTHER), "<search> Tova Rendik born </search>", 0),
    ],
)
def test_turns_have_the_scores_that_were_worked_out_by_hand(state, text, score):
    assert score_turn(state, text) == score


def read(*facts: Fact) -> str:
    return observation([fact.document for fact in facts], (), 1000)


NEED = "I need the mother of Mira Sollan."
ASKS = turn(NEED, "search", "mother of Mira Sollan")


@pytest.mark.parametrize(
    ("turns", "readings", "scores"),
    [
        (  # all is well
            [ASKS, turn(MOTHER.sentence, "search", "Tova Rendik born"),
             turn(BORN.sentence, "answer", "Velholm")],
            [read(MOTHER), read(BORN), ""], [9, 9, 9],
        ),
        (  # what was not read is no answer, though it is the right one
            [ASKS, turn(MOTHER.sentence, "search", "Tova Rendik born"),
             turn(BORN.sentence, "answer", "Velholm")],
            [read(MOTHER), read(), ""], [9, 9, 1],
        ),
        (  # a document that a simulator made up is followed like any other
            [ASKS, turn("The mother of Mira Sollan is Bame Jordur.", "search",
                        "Bame Jordur born")],
            [read(Fact("Mira Sollan", "mother", "Bame Jordur")), ""], [9, 9],
        ),
        ([ASKS, ASKS], [read(), ""], [9, 4]),
        ([ASKS.replace("</search>", ""), "nonsense"], ["", ""], [0, 0]),
        ([ASKS + "\n"], [""], [9]),
    ],
)  # fmt: skip
def test_a_students_conversation_is_graded_by_what_it_read(turns, readings, scores):
    assert graded_turns(QUESTION, turns, readings) == scores


def test_a_world_knows_the_questions_that_are_asked_about_it():
    world = World()
    for question in world.questions("eval", 2)[:20]:
        assert world.asked(question.text) == question
    assert world.asked("What is this?") is None


def conversation_row(**changes) -> dict:
    row = {"question": QUESTION.text, "turns": [ASKS, ASKS],
           "readings": [read(MOTHER), ""], "scores": [9, 1]}  # fmt: skip
    return row | changes


def test_judged_conversations_become_examples(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(conversation_row()) + "\n", "utf-8")
    (example,) = read_conversations(str(path))
    assert "".join(text for text, _ in example.pieces).endswith(
        ASKS + read(MOTHER) + ASKS
    )
    assert not any(weight for _, weight in example.pieces)
    assert [(b.after, b.pieces[1][0]) for b in example.branches] == [(2, "9"), (4, "1")]
    draw = world_examples(
        seed=0, judged_share=1.0, simulated_share=0.0, hasty_share=0.0,
        judged_data=str(path),
    )  # fmt: skip
    assert 20 < sum(made == example for made in draw(0, 64)) < 44  # half of them


@pytest.mark.parametrize(
    "changes",
    [
        {"question": 3}, {"turns": ASKS}, {"turns": [ASKS]}, {"readings": [1, ""]},
        {"scores": [9, 10]}, {"scores": [9.0, 1]}, {"scores": None},
    ],
)  # fmt: skip
def test_a_broken_judged_conversation_is_named(tmp_path, changes):
    rows = [conversation_row(), conversation_row(**changes)]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    with pytest.raises(UserError, match=r"rows.jsonl:2 .*make_judge_data"):
        read_conversations(str(path))


def test_a_file_of_no_conversations_is_refused(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("", "utf-8")
    with pytest.raises(UserError, match="no judged conversations"):
        read_conversations(str(path))


def test_slips_are_mostly_bad_and_of_every_kind():
    world, rng = World(), random.Random(0)
    question = world.questions("train", 2)[0]
    (mother, _), _ = question.follow(world.facts)
    state = State(question)
    state.read(Need(mother.subject, mother.relation).queries[0], [mother])
    scores = [score_turn(state, slip(state, rng)) for _ in range(500)]
    assert sum(score < 7 for score in scores) > 350
    assert {0, 1, 4, 5, 9} <= set(scores)


def test_the_tokenizer_gives_back_every_text_and_a_tag_is_a_token():
    tokenizer, world = world_tokenizer(), World()
    texts = [question.text for question in world.questions("eval", 2)]
    texts += [fact.sentence for fact in world.facts]
    texts.append("<answer>x<b>\n\n  Zoë's 12 <think>")
    for text in texts[:-1]:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids) == text
        assert len(ids) < 20
        assert tokenizer.unk_token_id not in ids
    for tag in TAGS:
        assert len(tokenizer(tag)["input_ids"]) == 1
        assert len(tokenizer(f" {tag}")["input_ids"]) == 1
    stranger = tokenizer("Doc bakery ~", add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(stranger) == "Doc bakery ~"


def test_text_after_a_turn_does_not_change_the_turns_tokens():
    tokenizer, rng = world_tokenizer(), random.Random(0)
    (example,) = world_examples(
        seed=0, judged_share=1.0, simulated_share=0.0, hasty_share=0.0
    )(0, 1)
    pieces = [text for text, _ in example.pieces]
    apart = [i for text in pieces for i in tokenizer(text)["input_ids"]]
    assert apart == tokenizer("".join(pieces))["input_ids"]
    assert len(judgement(World(), rng).pieces) >= 2


def test_examples_are_a_function_of_seed_and_step():
    shares = {"judged_share": 0.4, "simulated_share": 0.4, "hasty_share": 0.5}
    first = world_examples(seed=0, **shares)(2, 20)
    assert first == world_examples(seed=0, **shares)(2, 20)
    assert first != world_examples(seed=0, **shares)(3, 20)
    assert first != world_examples(seed=1, **shares)(2, 20)


def test_a_hasty_demonstration_searches_at_most_until_it_finds_something():
    examples = world_examples(
        seed=0, judged_share=0.0, simulated_share=0.0, hasty_share=1.0
    )(0, 200)
    for example in examples:
        trained = [text for text, weight in example.pieces if weight]
        needed = trained[0].split("I need ")[1].split(".")[0]
        queries = [text for text in trained if query_of(text)]
        assert all(f"I need {needed}." in text for text in queries)


def test_scores_hang_on_their_turns_and_wrong_turns_are_not_imitated():
    rng, world = random.Random(0), World()
    for _ in range(200):
        example = judgement(world, rng)
        own = [branch for branch in example.branches if len(branch.pieces) == 2]
        for branch in example.branches:
            assert all(weight == 0 for _, weight in branch.pieces[:-1])
            assert branch.pieces[-2][0] == JUDGE_STEP
            assert branch.pieces[-1][0] in "0123456789"
        for branch in own:
            weight = example.pieces[branch.after - 1][1]
            assert (weight == 1.0) == (branch.pieces[-1][0] == "9")


def test_examples_fit_the_embedded_models():
    tokenizer = world_tokenizer()
    examples = world_examples(
        seed=0, judged_share=0.5, simulated_share=0.3, hasty_share=0.0
    )(0, 300)
    encoded = [encode(tokenizer, example) for example in examples]
    assert max(map(len, encoded)) <= world_agent.get_config().max_tokens
    positions = [position for rows in encoded for _, _, position, _, _ in rows]
    assert max(positions) < 512
