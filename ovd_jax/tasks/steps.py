r"""Cutting a solution into steps, by one of several rules, in linear time.

Nothing is cut inside what is closed: displayed mathematics (`$$`, `\[ \]`, `\begin
\end`) and inline one (`$`, `\( \)`), code between backticks, and for the rule `tags`
what a tag encloses.
"""

import re
from collections import defaultdict
from collections.abc import Callable

from ovd_jax.errors import UserError

# Newlines with the blank lines after them, what opens or closes, escaped characters.
_ALWAYS = r"""
    \n(?:[^\S\n]*+\n)*+
    | (?<!`)`++
    | \$\$ | \$
    | \\begin\{ | \\end\{ | \\[\[\]()] | \\.
"""
_SENTENCE = r"""
    (?<![.!?])[.!?]++["'\u201d\u2019)\]*_]*+[^\S\n]++(?!\n)
    | (?<![\u3002\uff01\uff1f])[\u3002\uff01\uff1f]++  # of Chinese and Japanese
      [\u201d\u2019\u300d\u300f\uff09]*+[^\S\n]*+(?!\n)
"""
_STEP_N = r"""
    (?<![^\n])[^\S\n]{0,8}[#>*_-]{0,6}[^\S\n]?(?i:step)[^\S\n]{1,3}\d{1,4}\b
    | (?<=[^\S\n])\*{0,2}Step[^\S\n]{1,3}\d{1,4}\*{0,2}:
"""
_TAG = r"</?[A-Za-z][\w-]{0,40}>"
_PATTERNS = {
    rule: re.compile("|".join((*own, _ALWAYS)), re.VERBOSE)
    for rule, own in {
        "lines": (),
        "blank_lines": (),
        "sentences": (_SENTENCE,),
        "step_n": (_STEP_N,),
        "tags": (_TAG,),
    }.items()
}
RULES = tuple(_PATTERNS)
# By rule, a string at which a step usually ends, for whoever is to write but one. It
# may stand inside of what is closed too: only `sure_end` tells.
STOPS = {
    "lines": "\n",
    "blank_lines": "\n\n",
    "sentences": "\n",
    "step_n": "\nStep ",
    "tags": "\n",
}
# Ways in which a text may go on that would close what it has opened.
_GOES_ON = ("1", *(f"1{end}\n1" for end in (r"\]", r"\)", "$$", "$", "```", "`")))
_GOES_ON += (r"1\end{x}" + "\n1",)
_OPENED = re.compile(r"<([A-Za-z][\w-]{0,40})>")
_CLOSERS = {r"\[": r"\]", r"\(": r"\)", r"\begin{": r"\end{"}
_CLOSERS |= {mark: mark for mark in ("$$", "$", "```", "`")}
_NESTED = ("<", r"\e")  # how closers begin that belong to one opener each
_INLINE = ("$", r"\)")  # no blank line is inside of it
_ABBREVIATION = re.compile(
    r"(?:^|[\s(])(?:e\.g|i\.e|cf|vs|Mr|Mrs|Ms|Dr|Prof|St|No|Fig|Eqs?|Sec|Thm|approx"
    r"|resp)$|(?:^|\n)[^\S\n]*\(?\d{1,3}$"
)

_BLANK = re.compile(r"\s*")


def check_rule(rule: str) -> None:
    """Raises UserError unless `rule` is one of RULES."""
    if rule not in RULES:
        raise UserError(f"step_rule {rule!r} is not one of {', '.join(RULES)}.")


def step_ends(text: str, rule: str = "lines") -> tuple[int, ...]:
    """Where the steps of a text end, as rising offsets; the last one is its length.

    `lines`: at newlines, with the blank lines after them; `blank_lines`: at those only;
    `sentences`: after each, and at newlines; `step_n`: before "Step 3" where it begins
    a line or has a colon; `tags`: after what a tag encloses. A piece that is blank
    belongs to the next step, at the end to the last; an empty text has none.
    """
    check_rule(rule)
    tokens = list(_PATTERNS[rule].finditer(text))
    closing = _closing_tokens(text, tokens)
    ends, start, index = [], 0, 0
    while index < len(tokens):
        last = closing.get(index, index)
        end = _end(rule, text, tokens[index], tokens[last])
        if end is not None and text[start:end].strip():
            start = end
            ends.append(end)
        index = last + 1
    if ends and not text[start:].strip():
        ends.pop()
    return (*ends, len(text)) if text else ()


def sure_end(text: str, ends_of: Callable[[str], tuple[int, ...]]) -> int | None:
    """The end of the first step of `text` however the text continues; None if that is
    not known yet. `ends_of` is a task's `step_ends`."""
    closers = (f"1</{name}>1" for name in sorted(set(_OPENED.findall(text)))[:8])
    ends = {ends_of(text + more)[0] for more in (*_GOES_ON, *closers)}
    end = min(ends)
    return end if len(ends) == 1 and end <= len(text) else None


def _end(rule: str, text: str, token: re.Match, closer: re.Match) -> int | None:
    """Where a step may end at `token`, which `closer` closes if it is another one."""
    mark = token[0]
    if rule == "tags":
        encloses = mark[0] == "<" and closer is not token
        if not encloses:
            return None
        blank = _BLANK.match(text, closer.end())
        return blank.end() if blank else closer.end()
    if mark[0] == "\n":
        if rule == "blank_lines":
            return token.end() if "\n" in mark[1:] else None
        return None if rule == "step_n" else token.end()
    if rule == "sentences" and mark[0] in ".!?\u3002\uff01\uff1f":
        before = text[max(0, token.start() - 10) : token.start()]
        short = mark[0] == "." and _ABBREVIATION.search(before)
        return None if short else token.end()
    return token.start() if rule == "step_n" and "tep" in mark.lower() else None


def _closing_tokens(text: str, tokens: list[re.Match]) -> dict[int, int]:
    """For the index of each token that opens something, the index that closes it."""
    following = defaultdict(list)  # by what closes: the indices ahead, nearest last
    closing = {}
    for index in reversed(range(len(tokens))):
        token = tokens[index]
        mark = _kind(token[0])
        if mark[0] == "\n":
            following.pop("`", None)
            for name in _INLINE if "\n" in mark[1:] else ():
                following.pop(name, None)
            continue
        closer = f"</{mark[1:]}" if mark[0] == "<" else _CLOSERS.get(mark, "")
        before, after = text[token.start() - 1 : token.start()], text[token.end() :][:1]
        if following[closer] and not (mark == "$" and after.isspace()):
            closing[index] = following[closer][-1]
            if closer.startswith(_NESTED):
                following[closer].pop()
        if mark == "$" and (not before.strip() or after.isdigit()):
            continue  # "$5 and $6" is money
        following[mark].append(index)
    return closing


def _kind(mark: str) -> str:
    """A token's text, runs of backticks by what they fence: a block or a line."""
    return ("```" if len(mark) > 2 else "`") if mark[0] == "`" else mark
