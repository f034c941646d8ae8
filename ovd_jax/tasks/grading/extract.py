"""Extracts the final answer of a solution."""

import collections
import re

from ovd_jax.tasks.grading.folding import fold
from ovd_jax.thoughts import after_thought

GROUP = r"\{(?:[^{}]|\{[^{}]{0,80}\}){0,80}\}"
FRAC = rf"\\[dtc]?frac\s?(?:{GROUP}\s?{GROUP}|\d\d|\d\s?{GROUP})"
BOX = r"\\(?:boxed|fbox|framebox)(?![A-Za-z])(?:\s*\[[^\[\]]{0,40}\])*\s*"
# A box without braces holds what follows up to a space: \boxed 2, \boxed\frac12.
BARE = (
    r"-?(?=[\d.\\]|[A-Za-z](?![A-Za-z]))"
    rf"(?:{FRAC}|\\[A-Za-z]+(?:{GROUP})?|[\w.,/^%])+"
)
BOX_TOKEN = re.compile(
    rf"{BOX}(?:(?P<brace>\{{)|(?P<bare>{BARE}))|\\.|[{{}}]", re.DOTALL
)
# Where a base model goes on to a question of its own, or past its end.
NEXT_QUESTION = re.compile(
    r"\n[ \t]*(?:#+ *|\*\* *)?(?:(?:(?:New|Next|Another) +)?"
    r"(?:Question|Problem|Exercise|Q|question|problem|exercise)(?: *\d+)?"
    r"|Human|User|Instruction|Pregunta|Problema|Frage|Aufgabe|Domanda|Pergunta"
    r"|\u0412\u043e\u043f\u0440\u043e\u0441|\u0417\u0430\u0434\u0430\u0447\u0430"
    r"|\u95ee\u9898|\u9898\u76ee|\u554f\u984c|\ubb38\uc81c) *(?:\*\*)? *:"
    r"|<\|(?:im_start|im_end|endoftext|end_of_text|eot_id|eom_id|end)\|>"
    r"|</s>|<eos>|<end_of_turn>|<\uff5cend\u2581of\u2581sentence\uff5c>"
)
# The same where an answer was given before; else it may be part of a solution.
HEADING = re.compile(
    r"\n[ \t]*(?:#+ *|\*\* *|\\(?:sub)*section\*?\{|\[)?"
    r"(?:(?:Question|Problem|Exercise|Example)(?: *\d+)?|Input)"
    r"(?:[.:\]}]|[ \t*]*(?=\n))"
)
ANSWER_TAG = re.compile(r"<answer>((?:(?!</?answer>).){1,1000})</answer>", re.DOTALL)
# "The answer is", also in other languages, and in Chinese "hence choose" or "fill in".
ANSWER_PHRASE = re.compile(
    r"(?:answer\s*(?:\*\*\s*)?(?:is\b|[:=\u2192]|->|\\(?:right|to)(?:arrow)?\b"
    r"|(?:should|must|would|will)\s+be\b(?=[\s:*]*(?:[-+\d$.\\(]|[A-H]\b)))"
    r"|(?:correct|right|best)\s+(?:choice|option)\s+(?:is|would\s+be)\b"
    r"|(?:r\u00e9ponse|respuesta|resposta|risposta|antwort|l\u00f6sung|odpowied\u017a"
    r"|jawaban|\u0111\u00e1p \u00e1n|\u043e\u0442\u0432\u0435\u0442"
    r"|\u0432\u0456\u0434\u043f\u043e\u0432\u0456\u0434\u044c"
    r"|\u0909\u0924\u094d\u0924\u0930|\u7b54\u3048|\u6b63\u89e3|\uc815\ub2f5|\ub2f5"
    r"|\u0627\u0644\u062c\u0648\u0627\u0628|\u0627\u0644\u0625\u062c\u0627\u0628\u0629)"
    r"\s*(?:\*\*\s*)?(?::|(?:est|es|\u00e9|\u00e8|ist)\b|[\u306f\uc740\ub294])"
    r"|\u7b54\u6848(?:\u662f|\u4e3a)?|\u6545(?:\u9009|\u586b))"
    r"[\s:*$]*(?:\\[\[(]\s*)?",
    re.IGNORECASE,
)
FULL_STOP = (
    r"(?<!\bMr)(?<!\bMs)(?<!\bDr)(?<!\bSt)(?<!\bMrs)\.(?=\s|$)|[\u3002\u0964]|\n"
)
SENTENCE_END = re.compile(FULL_STOP)
FORMULA_END = re.compile(rf"(?<!\\)\$|\\[\])]|{FULL_STOP}")
# A sign stands at its number, or after what begins a value: "x = - 5"; "10 - 5" is a
# difference, and "- 5 apples" an item of a list.
SIGN = (
    r"(?<![A-Za-z\d_.)\]}!])-(?:\\?\$)?"
    r"|(?:(?<=[=:(\[{$])|(?<=[=:(\[{$] )|(?<=\bis )|(?<=equals )|(?<=approx ))-\s"
    r"|\b[Nn]egative\s"
    r"|(?:(?<=[=:]\s)|(?<=\b(?:is|be|to)\s)|(?<=\b(?:get|are)\s))[Mm]inus\s"
)
ALONE = r"(?<![A-Za-z\d_.])"
POWER = r"\^(?:\{-?\d+\}|\d+)"
ROOT = rf"\\sqrt(?:\[\w+\])?(?:{GROUP}|\d)|\\pi(?![A-Za-z])"
DECIMAL = r"(?:\d+(?:,\d+)*(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d{1,3}(?![A-Za-z\d]))?"
VALUE = (
    rf"(?:{ALONE}\d{{1,3}} ?)?{FRAC}(?:\s?(?:{ROOT}))?"
    rf"|{ALONE}\d{{1,3}} \d{{1,3}}/\d{{1,3}}(?![\d/])"  # 3 1/2
    rf"|{ALONE}\d{{1,3}}(?:(?: \d{{3}})* 000|(?: \d{{3}}){{2,}})(?![\d,/])"  # 5 000
    # a ratio or a time of day, and not "Week 3:210 pages"
    r"|(?:\A|(?<=is )|(?<=at )|(?<=[=$:])|(?<=[=:] ))\d{1,3}:\d{1,3}(?![\d:])"
    rf"|{ALONE}{DECIMAL}(?:{POWER}|\s*\\times\s*10{POWER})?"
    rf"(?:\s?(?:{ROOT})(?:/\d+)?|/\d+)?(?:\s?\\?%)?"
    rf"|(?:{ROOT})(?:/\d+)?"
)
PROPORTION = re.compile(r":\s?\d+\s?=\s?\d+:\d+$")  # 2:3 = 4:6 tells what 6 is
# An exponent or an index is no answer, and is passed over.
LAST_NUMBER = re.compile(
    rf"[\^_]\s?(?:\{{[^{{}}]{{0,80}}\}}|-?\w+)|(?P<sign>{SIGN})?(?P<value>{VALUE})"
)


def extract_answer(text: str) -> str | None:
    r"""The final answer of a solution, or None if it gives none; linear in its length.

    That is the last closed `\boxed{...}`, else what stands in the last `<answer>` tag,
    else what follows the last `####`, else what follows the last "answer is", else the
    last number. Thoughts are no part of a
    solution, and neither is what follows a question that the text makes up itself.
    """
    pieces = [
        p for p in NEXT_QUESTION.split(fold(after_thought(text) or "")) if p.strip()
    ]
    answers = (_explicit(piece) or _last_number(piece) for piece in pieces)
    return next(filter(None, answers), None)


def last_line(text: str) -> str | None:
    """The last line of a solution that has words."""
    lines = fold(after_thought(text) or "").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), None)


def _explicit(text: str) -> str | None:
    """What the text itself calls its answer, before it goes on to a question."""
    finders = (last_boxed, _in_tag, _after_hashes, after_phrase)
    found = (find(part) for part in HEADING.split(text) for find in finders)
    return next(filter(None, found), None)


def _in_tag(text: str) -> str | None:
    """The content of the last `<answer>` tag."""
    tag = _last(ANSWER_TAG, text)
    return tag[1].strip() or None if tag else None


def last_boxed(text: str) -> str | None:
    """The content of the last closed boxed command."""
    open_braces: list[int | None] = []  # where the content of a box starts, else None
    best = (-1, "")
    for token in BOX_TOKEN.finditer(text):
        if token["bare"]:
            best = (token.start("bare"), token["bare"].rstrip(".,"))
        elif token["brace"]:
            open_braces.append(token.end())
        elif token[0] == "{":
            open_braces.append(None)
        elif token[0] == "}" and open_braces:
            start = open_braces.pop()
            if start is not None and start > best[0]:
                best = (start, text[start : token.start()].strip())
    return best[1] or None


def _after_hashes(text: str) -> str | None:
    _, mark, tail = text.rpartition("####")
    return tail.strip().partition("\n")[0].strip() or None if mark else None


def after_phrase(text: str) -> str | None:
    """What follows the last "answer is", up to the end of its sentence."""
    phrase = _last(ANSWER_PHRASE, text)
    if phrase is None:
        return None
    formula = phrase[0].rstrip().endswith(("$", r"\[", r"\("))
    end = FORMULA_END if formula else SENTENCE_END
    return end.split(text[phrase.end() :], maxsplit=1)[0].strip(" *") or None


def _last_number(text: str) -> str | None:
    found = None
    for match in LAST_NUMBER.finditer(text):
        value = match["value"] or ""
        if not re.search(r"\d|\\pi", value):  # a fraction of names, or nothing
            continue
        if ":" in value and PROPORTION.search(
            text, max(0, match.start() - 9), match.end()
        ):
            value = value.partition(":")[2]
        found = ("-" if match["sign"] else "") + value
    return found


def _last(pattern: re.Pattern, text: str) -> re.Match | None:
    return next(iter(collections.deque(pattern.finditer(text), maxlen=1)), None)
