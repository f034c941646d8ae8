"""Answers against golds, by hand."""

import pytest

from ovd_jax.tasks.grading.qa_metrics import (
    cover_match,
    exact_match,
    f1,
    holds,
    normalize,
    retrieval_recall,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Beatles!", "beatles"),
        ("a man, a plan, an idea", "man plan idea"),
        ("U.S.A.", "usa"),
        ("Théâtre of the Absurd", "théâtre of absurd"),
        ("anthem", "anthem"),  # begins with an article, but is none
        ("\n", ""),
    ],
)
def test_texts_are_normalized_as_in_squad(text, expected):
    assert normalize(text) == expected


@pytest.mark.parametrize(
    ("answer", "golds", "em", "cover", "score"),
    [
        ("the Eiffel Tower", ["Eiffel tower."], 1, 1, 1),
        ("in Paris, France", ["Paris"], 0, 1, 2 * (1 / 3) / (1 / 3 + 1)),
        ("Paris", ["Paris, France"], 0, 0, 2 / 3),
        ("1988", ["21988"], 0, 0, 0),  # not a part of a word
        ("it was in 1988", ["9", "1988"], 0, 1, 2 / 5),
        ("New York City", ["NYC", "New York"], 0, 1, 4 / 5),  # the best of all golds
        ("york new", ["New York"], 0, 0, 1),  # F1 knows no order
        ("no no no", ["no"], 0, 1, 1 / 2),  # as a multiset
        ("", ["Paris"], 0, 0, 0),
        (None, ["Paris"], 0, 0, 0),
        (None, ["the"], 0, 0, 0),  # a gold that normalizes to nothing
        ("anything", ["the"], 0, 0, 0),
        ("a", ["the"], 1, 0, 1),
    ],
)
def test_the_three_measures_of_an_answer(answer, golds, em, cover, score):
    assert exact_match(answer, golds) == em
    assert cover_match(answer, golds) == cover
    assert f1(answer, golds) == pytest.approx(score)


def test_a_gold_is_held_across_punctuation_but_not_across_other_words():
    assert holds("It was Ada, Countess of Lovelace.", ["Countess of Lovelace"])
    assert not holds("Ada and the young Lovelace", ["Ada Lovelace"])


def test_recall_asks_whether_any_document_holds_any_gold():
    documents = ["Lima is in Peru.", "Quito lies high."]
    assert retrieval_recall(documents, ["Oslo", "quito"]) == 1.0
    assert retrieval_recall(documents, ["Oslo"]) == 0.0
    assert retrieval_recall([], ["Oslo"]) == 0.0
