r"""One spelling of what can be written in many ways.

`fold` comes before everything else: before an answer is looked for in a solution, and
before an answer and a gold are compared. It turns Unicode maths into LaTeX, and dashes,
spaces, digits and quotes into ASCII. `plain_math` turns the maths of programs, such as
`2*sqrt(3)`, into LaTeX; it is for answers alone, as it would change prose. Both are
linear in the text, and fold what is folded already into itself.
"""

import re
import unicodedata

RANGE = "\N{EN DASH}"  # between two plain numbers; not the minus of a difference
NO_BREAK = "\N{NO-BREAK SPACE}"  # stands for all spaces that hold a number together

_DASHES = "\u2012\u2013\u2014\u2015"
_NAMES = {
    "-": "\u2010\u2011\u02d7\u2212\u2796\ufe63",
    RANGE: _DASHES,
    NO_BREAK: "\u2007\u2008\u2009\u200a\u202f\u205f",
    "\n": "\u0085\u2028\u2029",
    "'": "\u2018\u2019\u201a\u201b\u2032\u00b4\uff07",
    '"': "\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb\uff02",
    "/": "\u2044\u2215",
    ":": "\u2236",
    "|": "\u2223\u2758",
    "\\cdot ": "\u00b7\u22c5\u2219",
    "\\times ": "\u00d7\u2715\u2a2f",
    "/ ": "\u00f7",
    "\\pm ": "\u00b1",
    "\\infty ": "\u221e",
    "\\cup ": "\u222a\u22c3",
    "\\cap ": "\u2229\u22c2",
    "\\le ": "\u2264\u2266\u2a7d",
    "\\ge ": "\u2265\u2267\u2a7e",
    "\\ne ": "\u2260",
    "\\approx ": "\u2248\u2243\u2245",
    "\\in ": "\u2208",
    "\\notin ": "\u2209",
    "\\subset ": "\u2282",
    "\\subseteq ": "\u2286",
    "\\setminus ": "\u2216",
    "\\emptyset ": "\u2205\u2300",
    "\\angle ": "\u2220",
    "\\ldots ": "\u2026\u22ef",
    "\\sum ": "\u2211",
    "\\langle ": "\u27e8\u2329",
    "\\rangle ": "\u27e9\u232a",
    "\\lfloor ": "\u230a",
    "\\rfloor ": "\u230b",
    "\\lceil ": "\u2308",
    "\\rceil ": "\u2309",
    "\N{DEGREE SIGN}": "\u00ba\u02da",
    "%": "\u066a",
    ".": "\u066b",
    ",": "\u066c",
    "/1000": "\u2030",
    " cents": "\u00a2",
    "\\alpha ": "\u03b1", "\\beta ": "\u03b2", "\\gamma ": "\u03b3",
    "\\delta ": "\u03b4", "\\epsilon ": "\u03b5", "\\zeta ": "\u03b6",
    "\\eta ": "\u03b7", "\\theta ": "\u03b8", "\\kappa ": "\u03ba",
    "\\lambda ": "\u03bb", "\\mu ": "\u03bc\u00b5", "\\nu ": "\u03bd",
    "\\xi ": "\u03be", "\\pi ": "\u03c0", "\\rho ": "\u03c1",
    "\\sigma ": "\u03c3\u03c2", "\\tau ": "\u03c4", "\\phi ": "\u03c6\u03d5",
    "\\chi ": "\u03c7", "\\psi ": "\u03c8", "\\omega ": "\u03c9",
    "\\Gamma ": "\u0393", "\\Delta ": "\u0394\u2206", "\\Theta ": "\u0398",
    "\\Lambda ": "\u039b", "\\Xi ": "\u039e", "\\Pi ": "\u03a0",
    "\\Sigma ": "\u03a3", "\\Phi ": "\u03a6", "\\Psi ": "\u03a8",
    "\\Omega ": "\u03a9\u2126",
    "\\mathbb{R}": "\u211d", "\\mathbb{Z}": "\u2124", "\\mathbb{N}": "\u2115",
    "\\mathbb{Q}": "\u211a", "\\mathbb{C}": "\u2102",
}  # fmt: skip
_SUPER = (
    "\u00b9\u00b2\u00b3\u2070\u2071\u2074-\u207f"
    "\u02b0-\u02b8\u02e1-\u02e3\u1d2c-\u1d61\u1d9b-\u1dbf"
)
_SUB = "\u2080-\u208e\u2090-\u209c\u1d62-\u1d6a\u2c7c"
_ROOTS = {"\u221a": "", "\u221b": "[3]", "\u221c": "[4]"}


class _Characters(dict):
    """What each character becomes, worked out where it is first seen."""

    def __missing__(self, code: int) -> str:
        self[code] = found = _folded(chr(code))
        return found


def _folded(character: str) -> str:
    kind = unicodedata.category(character)
    if character.isascii() or kind in ("Cs", "Co", "Cn"):
        return character
    if kind == "Nd":
        return str(unicodedata.decimal(character))
    if kind == "Cf":  # zero-width marks, invisible operators
        return ""
    if kind == "Zs":
        return " " if character != NO_BREAK else NO_BREAK
    if kind == "Sc" and character != "\uff04":  # currencies, but for a wide dollar
        return ""
    plain = unicodedata.normalize("NFKC", character)
    if kind == "No" and "\u2044" in plain:  # a fraction in one character
        return "\\frac{{{}}}{{{}}}".format(*plain.split("\u2044"))
    # Circled numbers are names of statements, and no numbers.
    return character if kind == "No" or plain == NO_BREAK else plain


_CHARACTERS = _Characters()
_CHARACTERS.update({ord(c): to for to, several in _NAMES.items() for c in several})
_STACKED = re.compile(
    f"([{_SUPER}]{{1,9}})[\u2044/]([{_SUB}]{{1,9}})"  # a fraction of small digits
)
_RAISED = re.compile(f"[{_SUPER}]+")
_LOWERED = re.compile(f"[{_SUB}]+")
_ROOT_OF = re.compile(rf"([{''.join(_ROOTS)}])\s*(\d+(?:\.\d+)?|[A-Za-z]|\u03c0)?")
# 1 234 567 with spaces of the kind that does not break a line.
_GROUPED = re.compile(rf"(?<![\d.])\d{{1,3}}(?:{NO_BREAK}\d{{3}})+(?!\d)")
_PLAIN = r"\d[\d,]*(?:\.\d+)?"
# 3-5 with a dash that is no hyphen; "2x - 5" and "5 - 2\sqrt3" are differences.
_SIGN = re.compile(r"(?<![\w)}\]])\u207b(?=\d)")  # small, but of no exponent
_RING = re.compile(r"(?<=\d)\s?\u2218")  # the degrees of those who have no other sign
_IS_RANGE = re.compile(
    rf"(?<![\w.^_}}\\]){_PLAIN}(?P<dash>{RANGE})(?={_PLAIN}(?!\s*[\\^({{=+*/]|[\w.]\w))"
)
_MINUS = re.compile(RANGE)


def fold(text: str) -> str:
    """`text` with one spelling for each sign; see above."""
    if text.isascii():
        return text
    text = unicodedata.normalize("NFC", text)
    text = _RING.sub("\N{DEGREE SIGN}", _SIGN.sub("-", text))
    text = _STACKED.sub(lambda m: f"\\frac{{{_bare(m[1])}}}{{{_bare(m[2])}}}", text)
    text = _RAISED.sub(lambda m: "^" + _script(m), text)
    text = _LOWERED.sub(lambda m: "_" + _script(m), text)
    text = _ROOT_OF.sub(_root, text).translate(_CHARACTERS)
    text = _GROUPED.sub(lambda m: m[0].replace(NO_BREAK, ""), text)
    text = text.replace(NO_BREAK, " ")
    if RANGE not in text:
        return text
    ranges = {match.start("dash") for match in _IS_RANGE.finditer(text)}
    return _MINUS.sub(lambda m: RANGE if m.start() in ranges else "-", text)


def _bare(text: str) -> str:
    return unicodedata.normalize("NFKC", text).replace("\N{MINUS SIGN}", "-")


def _script(match: re.Match) -> str:
    text = _bare(match[0])
    touches = match.string[match.end() : match.end() + 1].isdigit()
    return f"{{{text}}}" if len(text) > 1 or touches else text


def _root(match: re.Match) -> str:
    of = f"{{{match[2]}}}" if match[2] else ""
    return f"\\sqrt{_ROOTS[match[1]]}{of}"


_NAME = r"(?<![A-Za-z\\])"
_WORDS = (
    (re.compile(rf"{_NAME}(?:(?:np|numpy|math|sympy|Math)\.)(?=[A-Za-z])"), ""),
    (re.compile(r"(?<=[\w)}\]])\s?\*\*\s?(?=[\w(\\{+-])"), "^"),
    (re.compile(rf"{_NAME}[Pp]i(?![A-Za-z(])"), r"\\pi "),
    (re.compile(rf"{_NAME}(?:infinity|infty|inf|Infinity|Inf)(?![A-Za-z])"),
     r"\\infty "),
    (re.compile(r"(?<=[-,(\[+\s])oo(?=\s?[,)\]])"), r"\\infty "),
    (re.compile(
        rf"{_NAME}(alpha|beta|gamma|delta|theta|lambda|sigma|omega|phi)(?![A-Za-z])"),
     r"\\\1 "),
    (re.compile(r"(?<=[)\]])\s*(?:U|union)\s*(?=[(\[])"), r"\\cup "),
    (re.compile(rf"{_NAME}a(sin|cos|tan)(?=\s?[(^])"), r"arc\1"),
    (re.compile(rf"{_NAME}log(2|10)(?=\()"), r"log_{\1}"),
    (re.compile(
        rf"{_NAME}(arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|ln|log)"
        r"(?=\s?(?:[({\\^_\d]|[A-Za-z](?![A-Za-z]))|x(?![A-Za-z]))"), r"\\\1 "),
    (re.compile(rf"{_NAME}(sec|csc)(?=\()"), r"\\\1 "),
    (re.compile(rf"{_NAME}sqrt\s?(\d+|[a-z](?![A-Za-z]))"), r"\\sqrt{\1}"),
    (re.compile(r"\^\s?(-\d+|\d\d+)"), r"^{\1}"),
)  # fmt: skip
# Before a bracket that may hold others: what comes for the bracket's two ends.
_CALL = re.compile(
    rf"(?:\\|{_NAME})(sqrt(?:\[\d+\])?|cbrt|exp|abs)\s?(?=\()|(\^)\s?(?=\()"
)
_ENDS = {
    "exp": ("e^{", "}"),
    "abs": ("|", "|"),
    "cbrt": (r"\sqrt[3]{", "}"),
    "^": ("^{", "}"),
}


def plain_math(text: str) -> str:
    """A folded answer with `sqrt(2)`, `2*pi`, `x**2`, `exp(x)` and `inf` as LaTeX."""
    for pattern, to in _WORDS:
        text = pattern.sub(to, text)
    return _calls(text)


def _calls(text: str) -> str:
    """Braces for the brackets after `sqrt`, `exp`, `abs` and `^`."""
    starts = {match.end(): match for match in _CALL.finditer(text)}
    if not starts:
        return text
    out, opened, done = [], [], 0
    for place in range(len(text)):
        if text[place] == "(":
            match = starts.get(place)
            opened.append((place, match))
        elif text[place] == ")" and opened:
            start, match = opened.pop()
            if match:
                name = match[1] or match[2]
                before, after = _ENDS.get(name, (f"\\{name}{{", "}"))
                out.append((match.start(), start + 1, before))
                out.append((place, place + 1, after))
    pieces = []
    for start, end, new in sorted(out):
        pieces += [text[done:start], new]
        done = end
    return "".join([*pieces, text[done:]])
