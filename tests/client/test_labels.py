# ruff: noqa: RUF001
"""The label in an answer: dressed ones are read, ambiguous ones are not."""

import pytest

from ovd_jax.client.labels import read_label
from ovd_jax.thoughts import after_thought

DIGITS = tuple("0123456789")
TO_TEN = tuple(str(n) for n in range(1, 11))
WORDS = ("bad", "fair", "good")

READ = [
    # Bare, and with what a model adds without thought.
    "7", " 7", "7\n", "7.", "7!", "7.0", "7.00", "\n\n7\n", "7</s>", "7<|im_end|>",
    "7<|eot_id|>", "\ufeff7", "7\u200b",
    # Markdown, quotes and brackets.
    "**7**", "*7*", "***7***", "__7__", "_7_", "`7`", "**7**.", "**7.**", "# 7",
    '"7"', "'7'", "“7”", "‘7’", "«7»", "(7)", "[7]", "「7」", '"**7**"', "```\n7\n```",
    "```7```", "[[7]]", "**[7]**",
    # With the name of what it is.
    "Score: 7", "score: 7", "SCORE: 7", "Score: **7**", "**Score: 7**", "**Score:** 7",
    "**Score**: 7", "Score = 7", "Score:7", "Grade: 7", "Rating: 7", "Final score: 7.",
    "Final Answer: 7", "Overall grade: 7/9", "Score (0-9): 7", "Score (out of 9): 7",
    "### Score: 7", "Answer: 7", "Step score: 7", "Score: seven", "Score：７",
    "分数：7", "评分: 7", "スコア：７", "Bewertung: 7", "Nota: 7", "Punteggio: 7",
    "Pontuação: 7", "Ocena: 7", "Điểm: 7", "คะแนน: 7", "الدرجة: ٧", "स्कोर: 7",
    "점수: 7점", "評価：7", "点数：7", "スコアは7です", "分数是7", "评分：7分", "7/9分",
    "Score - 7", "Score – 7", "Score -> 7", "Score => 7", "Score → 7", "Score | 7",
    "Score 7", "Score 7/9", "Grade 7", "Score of 7", "A score of 7", "score is 7",
    "The score is 7.", "The final score is **7**.", "My rating is 7", "- Score: 7",
    "My score is: 7", "**The score is:** 7/9", "Final rating of: 7",
    "• Score: 7", "1. Score: 7", "| Score | 7 |", "[Score: 7]", "[RESULT] 7",
    "Rating: [[7]]", "[[rating: 7]]", '"score": 7', "Level: 7",
    "The final score is $\\boxed{7}$.",
    # Politeness, roles, pictures.
    "Sure! 7", "Sure, here is the score: 7", "Here's my score: 7", "Okay. Score: 7",
    "Assistant: 7", "assistant\n7", "7 ✅", "⭐ 7", "7 👍", "* 7", "• 7", "❼",
    # Of a scale.
    "7/9", "7 / 9", "7 out of 9", "**7/9**", "7/9.", "7.0/9.0", "7/9 points",
    "7 points", "Score: 7/9", "Score: 7 out of 9", "7∕9", "7⁄9", "7 of 9", "7 von 9",
    "7 sur 9", "7 de 9", "7 из 9", "Seven out of nine", "7 (out of 9)", "7 (seven)",
    "seven (7)",
    # JSON and its relatives.
    '{"score": 7}', '{"score":7}', '{"score": "7"}', '{"score": 7.0}', "{'score': 7}",
    '{"Score": 7}', '{"grade": 7}', '{"rating": "7/9"}', '{"result": 7}',
    '{"final_score": 7}', '{"step_score": 7}', '{"score": [7]}', '{"score": "**7**"}',
    '```json\n{"score": 7}\n```', '```\n{"score": 7}\n```', '```json{"score": 7}```',
    '{"score": 7, "reason": "well reasoned"}', '{"reason": "3 steps", "score": 7}',
    '{"score": 7, "confidence": 5}', '{"score": 7, "max_points": 9}', "[7]", '["7"]',
    '{\n  "score": 7\n}', '{"score": 7, "reason": "The solution is',
    '{"a": {"score": 7}}',
    "{“score”: 7}", '```json\n{"score": 7}\n```\nThe step is right.',
    # Tags and TeX.
    "<score>7</score>", "<answer> 7 </answer>", "<answer>**7**</answer>", "$7$",
    "\\boxed{7}", "$\\boxed{7}$", "\\(7\\)", "$$7$$", "\\[ 7 \\]", "\\text{7}",
    # Digits of other alphabets.
    "７", "７．", "７/９", "٧", "७", "⑦", "7️⃣", "⁷",
    # Thoughts that ended.
    "<think>5? No, 6.</think>7", "<think>\n\n</think>\n\n7", "so 6</think>\n7",
    "<think>6</think>Score: **7**", "<thinking>6</thinking>7", "[THINK]6[/THINK]7",
    "◁think▷6◁/think▷7", "<seed:think>6</seed:think>7",
    "<|channel|>analysis<|message|>6?<|end|><|start|>assistant<|channel|>final<|message|>7",
    # An explanation beside it.
    "7\n\nBecause it follows.", "7\nAll 4 steps are right.", "7: correct", "7 (good)",
    "7 - correct and well reasoned", "7, since it follows", "**7**\n\nIt follows.",
    "Score: 7\nReason: it follows from step 2.", "It follows.\n\nScore: 7",
    "3 + 4 = 7, so the step is right.\n**Score: 7**", "seven", "Seven",
    "The step is right.\n\n7", "It follows.\n\n\\boxed{7}", "Score\n7", "#### Score\n7",
    "**Score**\n\n7", "The step is right. Score: 7", "It follows, so the score is 7.",
    "7 | good", "7 = good", "7 -> good",
]  # fmt: skip
NOT_READ = [
    "", " ", "\n", "?", "N/A", "null", "None", "...", "**", "{}", "[]", '""',
    # Other numbers.
    "7.5", "-7", "−7", "- 7", "10", "77", "100", "1,000", "7,000", "7th", "7%", "7e1",
    "7x", "0.7", ".7", "07", "7/10", "7/5", "7 out of 10", "~7", "7+", ">7", "7²", "½",
    "Score: 7.5", "Score: 70", '{"score": 7.5}', '{"score": 12}', "Score: -7",
    "**7.5**", "7.5/9", "\\boxed{7.5}", "2*3*4", "７．５",
    # Several numbers.
    "7 8", "7, 8", "7 or 8", "7-8", "7–8", "7 to 8", "6 < 7", "7\n8", "between 6 and 8",
    "7 = 7", "3 + 4 = 7", "[7, 8]", "(6, 7)", "Score: 7 or 8", "Score: 6-7",
    "7 (8 if lenient)", "7 -> 8", "7 → 8", "7±1", "7~8", "seven eight", "7 (eight)",
    "{\"score\": 7, \"score\": 8}", "\\boxed{7} or \\boxed{8}", "Score 7 or 8",
    "It has 3 steps.\n\n7", "Step 2 is wrong. Score 7 or 8",
    "Score: 7 Score: 8", "Score: 7 Grade: 8", "7 score: 8", "Score 7 rating: 8",
    "Score: 7; Score: 8", "Score: 7. Score: 8", "Score: 7\nScore: 8", "7\n\nScore: 8",
    "7\n\nActually, 8", "7, or maybe eight",
    '{"score": 7, "grade": 8}', '{"scores": [7, 8]}', '[{"score": 7}, {"score": 8}]',
    '{"first": 7, "second": 8}', "Step 1: 7\nStep 2: 8", "1: 7", "7: 8", "7/9 or 8/9",
    "<score>7</score><score>8</score>", "7\nNo, rather 5.",
    # Prose.
    "The 7", "I would give it a 7.", "The score is somewhere around 7, I think.",
    "7 errors were made", "3 steps are wrong", "1. The step is right", "It is step 7.",
    "The answer is 7", "The answer is \\boxed{7}", "The result is 7", "x = 7",
    "The score is not 7.", "score is somewhere near 7", "7 of 10", "7 of the 9 steps",
    "Note 7: careful", "No. 7", "maybe 7", "under 7", "≤7", "Score: –7", "Score – 7.5",
    '{"errors": 7}', '{"step1": 7}', '{"line": 7}', "7°", "I rate the 7th step 9th",
    "As a judge I cannot say.", "Errors: 7", "not 7", "Confidence: 7", "Let me think",
    "The answer 7 is right.", "Step 7", "Line 7: wrong", "7 because I say so",
    "Okay, the user wants a score. 7 seems", "Score:", '{"score": null}',
    '{"score": true}', '{"reason": "7 of them", "x": "y"}', "Score: high",
    # Thoughts that did not end.
    "<think>7", "<think>\nThe step is right, so 7", "[THINK]7", "7<think>", "</think>",
    "<think>a</think><think>7",
]  # fmt: skip


@pytest.mark.parametrize("text", READ)
def test_a_dressed_seven_is_read(text):
    assert read_label(text, DIGITS) == "7"


@pytest.mark.parametrize("text", NOT_READ)
def test_what_is_ambiguous_or_prose_is_not_read(text):
    assert read_label(text, DIGITS) is None


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("10", "10"), ("**10**", "10"), ("10/10", "10"), ("7/10", "7"), ("7/9", None),
        ("10.0", "10"), ("ten", "10"), ("0", None), ("100", None), ("1", "1"),
        ('{"score": 10}', "10"), ("1 0", None), ("１０", "10"), ("1.0", "1"),
    ],
)  # fmt: skip
def test_labels_may_have_two_digits(text, label):
    assert read_label(text, TO_TEN) == label


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("good", "good"), ("Good.", "good"), ("**GOOD**", "good"), ("bad: no", "bad"),
        ("Verdict: fair", "fair"), ('{"verdict": "good"}', "good"), ("goods", None),
        ("good or fair", None), ("not good", None), ("good, not bad", None),
        ("It is good", None), ("3", None), ("good\nIt follows.", "good"),
    ],
)  # fmt: skip
def test_labels_may_be_words(text, label):
    assert read_label(text, WORDS) == label


def test_a_long_answer_is_read_in_no_time():
    parts = (
        "7",
        "(",
        "*",
        "7 ",
        '{"score":',
        "7\n",
        "Score: ",
        "<|",
        "7/9 ",
        "`",
        "_a",
    )
    for part in parts:
        for count in (200, 100_000):
            assert read_label(part * count, DIGITS) in (None, "7")


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("so</think>\n\nFirst", "First"), ("<think>a</think>b", "b"), ("a", "a"),
        (" plain", " plain"), ("<think>a", None), ("a</think>b</think>c", "c"),
        ("[THINK]a[/THINK] b", "b"), ("a < b and c > d", "a < b and c > d"),
    ],
)  # fmt: skip
def test_what_follows_a_thought_is_the_answer(text, after):
    assert after_thought(text) == after
