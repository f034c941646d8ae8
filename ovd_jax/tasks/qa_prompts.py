"""Prompts of questions, as data. Fields: `{question}`, `{documents}`."""

import dataclasses

from ovd_jax.template import check_fields, fields_of, find_prompt


@dataclasses.dataclass(frozen=True)
class QAPrompt:
    """A form of the prompt. Raises UserError for missing or unknown fields."""

    text: str
    stop_strings: tuple[str, ...] = ("</answer>",)  # `</search>` too: it may search

    def __post_init__(self):
        check_fields("text", self.text, {"question"}, {"documents"})

    @property
    def searches(self) -> bool:
        """True if the student may use a search engine."""
        return "</search>" in self.stop_strings

    @property
    def reads(self) -> bool:
        """True if the prompt contains documents."""
        return "documents" in fields_of("text", self.text)


_AGENT = ("</search>", "</answer>")
_SHORT = "a few words without explanation"

PROMPTS = {
    # The interface of Search-R1 (arXiv:2503.09516), in our words: also ZeroSearch's and
    # OVD's.
    "search": QAPrompt(
        "Answer the question below. Begin each turn with your reasoning between "
        "<think> and </think>. When you lack a fact, write a search query between "
        "<search> and </search>; what a search engine finds is then shown to you "
        "between <information> and </information>. Search as often as you need. When "
        f"you know the answer, write it between <answer> and </answer>, in {_SHORT}, "
        "as in <answer> Lake Baikal </answer>.\nQuestion: {question}\n",
        _AGENT,
    ),
    # The same by examples, for models that follow no instructions (prompt_template:
    # plain). Of SmolLM2-135M's first turns 3 in 24 search after one, 21 after both.
    "search_example": QAPrompt(
        "Question: In which country was the painter of The Scream born?\n"
        "<think> The Scream was painted by Edvard Munch. I need to know where he was "
        "born. </think>\n<search> Edvard Munch birthplace </search>\n"
        "<information>\nDoc 1(Title: Edvard Munch) Edvard Munch was a painter. He was "
        "born in a farmhouse in Adalsbruk, Norway.\n</information>\n"
        "<think> Adalsbruk is in Norway. </think>\n<answer> Norway </answer>\n\n"
        "Question: Who was born first, Ada Lovelace or Alan Turing?\n"
        "<think> I need to know when Ada Lovelace was born. </think>\n"
        "<search> Ada Lovelace date of birth </search>\n"
        "<information>\nDoc 1(Title: Ada Lovelace) Ada Lovelace, born 10 December "
        "1815, was an English mathematician.\n</information>\n"
        "<think> Now I need to know when Alan Turing was born. </think>\n"
        "<search> Alan Turing date of birth </search>\n"
        "<information>\nDoc 1(Title: Alan Turing) Alan Turing, born 23 June 1912, was "
        "an English mathematician.\n</information>\n"
        "<think> 1815 is before 1912. </think>\n<answer> Ada Lovelace </answer>\n\n"
        "Question: {question}\n<think>",
        _AGENT,
    ),
    # Reasoning without an engine: R1's prompt as well.
    "cot": QAPrompt(
        "Answer the question below. First reason step by step between <think> and "
        f"</think>, then write the answer between <answer> and </answer>, in {_SHORT}, "
        "as in <answer> Lake Baikal </answer>.\nQuestion: {question}\n"
    ),
    "direct": QAPrompt(
        "Answer the question below at once, without reasoning. Write nothing but the "
        f"answer between <answer> and </answer>, in {_SHORT}, as in <answer> Lake "
        "Baikal </answer>.\nQuestion: {question}\n"
    ),
    "rag": QAPrompt(
        "Answer the question below; these documents may help, or may not.\n{documents}"
        f"Write the answer between <answer> and </answer>, in {_SHORT}, as in <answer> "
        "Lake Baikal </answer>.\nQuestion: {question}\n"
    ),
    # What the embedded models of the made-up world are asked.
    "world": QAPrompt("Question: {question}\n", _AGENT),
}


def load_prompt(name: str) -> QAPrompt:
    """One of `PROMPTS`, or the one in a JSON file of the same fields. Raises
    UserError."""
    return find_prompt("qa.prompt", name, PROMPTS, QAPrompt)
