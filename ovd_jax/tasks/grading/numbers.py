"""Plain numbers, with their units, as they are written in answers."""

import dataclasses
import re
from fractions import Fraction

TEXT_COMMAND = r"\\(?:text|textbf|textrm|mbox|mathrm|mathbf|operatorname)\s?"
DEGREES = re.compile(r"\^\s?\{?\s?\\circ\s?\}?|°|\\degree(?![A-Za-z])")
TEMPERATURE = re.compile(
    rf"\s?(?:{DEGREES.pattern})\s?(?:{TEXT_COMMAND}\{{)?\s?([CF])\s?\}}?$"
)
REPEATING = re.compile(r"(-?)(\d+)\.(\d*)(?:\\overline\s?\{(\d+)\}|\((\d+)\))")
FUNCTION = re.compile(r"\b(?:sin|cos|tan|cot|sec|csc|log|exp|sqrt|pi|mod|inf|ln)\b")
SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
# Words after a number that make another number of it.
CHANGING = (
    rf"{FUNCTION.pattern}|(?:and|or|plus|minus|dozen|squared|cubed|factorial|halves"
    r"|thirds|fourths|fifths|sixths|sevenths|eighths|ninths|tenths|hundredths"
    r"|thousandths|over|divided|january|february|march|april|may|june|july|august"
    r"|september|october|november|december"
    rf"|modulo|{'|'.join(SCALES)}|\w*illion)\b"
)
UNIT_TEXT = TEXT_COMMAND + r"\{(?:[^{}\d]|\^\d)*\}"
# Units that differ by a factor; all others are left to the reader.
UNITS = {
    "length": {"mm": 1, "cm": 10, "m": 1000, "km": 10**6, "meter": 1000},
    "imperial": {"in": 1, "inche": 1, "inch": 1, "ft": 12, "feet": 12, "foot": 12,
                 "yard": 36, "mi": 63360, "mile": 63360},
    "weight": {"mg": 1, "g": 1000, "kg": 10**6, "gram": 1000, "kilogram": 10**6},
    "volume": {"ml": 1, "l": 1000, "liter": 1000, "litre": 1000},
    "time": {"s": 1, "sec": 1, "second": 1, "min": 60, "minute": 60, "h": 3600,
             "hr": 3600, "hour": 3600, "day": 86400},
    "money": {"cent": 1, "dollar": 100},
    "celsius": {"degc": 1},
    "fahrenheit": {"degf": 1},
}  # fmt: skip
SIZES = {
    unit: (kind, size) for kind, sizes in UNITS.items() for unit, size in sizes.items()
}
POWER = r"(?:\^\{?-?\d\}?|(?<=m)[23])?"
# Russian units and words, and up to four characters of a script without spaces, but for
# those that make another number of it: ten thousand, half, ...
FOREIGN = (
    r"\s?(?:[\u043a\u0441\u043c]?\u043c|\u043a?\u0433|\u043c?\u043b|\u0448\u0442|\u0440\u0443\u0431|\u043c\u0438\u043d|\u0441\u0435\u043a|\u0447)(?![\u0400-\u04ff])\.?"
    r"|\s(?!\u0442\u044b\u0441|\u043c\u043b\u043d|\u043c\u043b\u0440\u0434|\u043f\u043e\u043b\u043e\u0432|\u0438\u043b\u0438|\u043c\u0438\u043b\u043b\u0438)"
    r"[\u0400-\u04ff]{3,}\.?"
    r"|\s?(?!\S{0,3}(?:\u5343(?![\u514b\u7c73])|[\u4e07\u842c\u4ebf\u5104\u767e\u5341\u534a\ub9cc\ucc9c\ubc31\uc5b5\ubc18]))"
    r"[\u3041-\u30ff\u4e00-\u9fff\uac00-\ud7a3]{1,4}"
)
UNIT = (
    rf"\s?{UNIT_TEXT}|st|nd|rd|th|\s?(?:[ckm]m|[km]g|ml)(?:\s?(?:per|an?|/)\s?[a-z]+)?"
    r"|\s?(?:k?m|mi|ft)/(?:h|hr|s|min)"
    r"|\s(?:m[23]?|[gslnjwvakh\u00e5]|k?hz|k?pa|k?j|mol|deg[cf]|kr|z\u0142|\\mu m)"
    r"(?![a-z\d])"
    rf"|\s(?:kg|n)\s?\\cdot\s?m(?:/s)?|\s?\\omega|\s(?!{CHANGING})"
    rf"(?:[a-z]{{3,}}|ft|in|hr|mi|lb|oz)\b(?:\s[a-z./]+)*|{FOREIGN}"
)
EUROPEAN = re.compile(r"\d{1,3}(?:\.\d{3})+,\d{1,2}")  # 1.234,5
DIGITS = (
    rf"{EUROPEAN.pattern}|\d{{1,3}}(?:_\d{{3}})+|"
    r"\d{1,3}(?:,\d{3})+(?:\.\d*)?"
    r"|\d{1,3}(?: \d{3})+(?:\.\d*)?|\d{1,3}(?:'\d{3})+|\d{1,3}(?:\.\d{3}){2,}"
    r"|\d{1,2}(?:,\d\d)+,\d{3}"  # as in India: 1,00,000
    r"|\d+(?:\.\d*)?|\.\d+"
)
NUMBER = re.compile(
    rf"(?P<sign>[-+]?)\s?(?:(?P<whole>\d+)\s(?=\d+\s?/))?"
    rf"(?P<top>(?:{DIGITS})(?:e[-+]?\d{{1,3}})?)"
    rf"(?:\s?/\s?(?P<bottom>{DIGITS}))?(?P<percent>\s?(?:\\?%|percent))?"
    rf"(?:\s(?P<scale>{'|'.join(SCALES)}))?"
    rf"(?:(?P<unit>{UNIT})(?P<power>{POWER}))?"
    rf"(?:\s?\((?!{CHANGING})[a-z][a-z -]{{1,40}}\))?"
)
FRACTION = re.compile(r"\\frac\s?(?:\{(-?\d+)\}|(\d))\s?(?:\{(\d[\d,]*)\}|(\d))")
POWER_OF_TEN = re.compile(
    r"\s?(?:\\times|\\cdot|\*|x)\s?10\s?\^\s?(?:\{\s?([-+]?\d{1,3})\s?\}|(\d))"
)
CURRENCY = re.compile(
    r"^([-+]?)\s?(?:(?:us|a|au|c|ca|hk|nt|nz|r|s|sg|mx)\\?\$|rs\.?|inr|usd|eur|gbp|cny"
    r"|rmb|jpy|krw|chf)\s?(?=[\d.])",
    re.IGNORECASE,
)

ROUNDED = Fraction(1, 50)  # how far 0.67 may be from 2/3 in "2/3 = 0.67"


@dataclasses.dataclass(frozen=True)
class Number:
    """A plain number as it was written."""

    value: Fraction
    percent: bool
    unit: str  # empty for one that has no size in `SIZES`
    decimal: bool  # written with a point or a power of ten, so it may be rounded
    rounding: Fraction  # how far a measured value may be off: see `rounding`

    @property
    def exact(self) -> bool:
        """Whether it is an integer, and not a measured value such as 3.00e8."""
        return self.value.denominator == 1 and not self.rounding


def number(cleaned: str) -> Number | None:
    """The plain number that a text is, with its unit; None for anything else."""
    text = DEGREES.sub("", TEMPERATURE.sub(r" deg\1", cleaned)).lower()
    text = FRACTION.sub(r" \1\2/\3\4", REPEATING.sub(_as_fraction, text))
    match = NUMBER.fullmatch(POWER_OF_TEN.sub(r"e\1\2", text).strip())
    if not match:
        return None
    top = digits(match["top"])
    bottom = Fraction(digits(match["bottom"] or "1"))
    if not bottom:
        return None
    value = Fraction(match["whole"] or 0) + Fraction(top) / bottom
    value = -value if match["sign"] == "-" else value
    value *= 10 ** SCALES.get(match["scale"], 0)
    decimal = not top.isdigit() or bottom.denominator > 1
    unit = "" if match["power"] else unit_name(match["unit"] or "")
    return Number(value, bool(match["percent"]), unit, decimal, rounding(top))


def unit_name(written: str) -> str:
    """The unit in `SIZES` that is written, in the singular, or an empty text."""
    name = re.sub(rf"{TEXT_COMMAND}|[{{}}.]", "", written).strip()
    return next((n for n in (name, name.removesuffix("s")) if n in SIZES), "")


def _as_fraction(repeating: re.Match) -> str:
    r"""0.1\overline{6} as 15/90."""
    sign, whole, fixed, period, other = repeating.groups()
    period = period or other
    top = int(whole + fixed + period) - int(whole + fixed)
    return f"{sign}{top}/{(10 ** len(period) - 1) * 10 ** len(fixed)}"


def digits(written: str) -> str:
    """A number without what parts its thousands."""
    if EUROPEAN.fullmatch(written):
        written = written.translate(str.maketrans(",.", ".,"))
    plain = re.sub("[, '_]", "", written)
    return plain.replace(".", "") if plain.count(".") > 1 else plain


def rounding(top: str) -> Fraction:
    """Half a unit in the last place of a measured value, such as 2.998e8, that has
    three digits or more; 0 for any other number, which is exact."""
    digits, _, power = top.partition("e")
    if not power or sum(c.isdigit() for c in digits.lstrip("0.")) < 3:
        return Fraction(0)
    decimals = len(digits.partition(".")[2])
    return Fraction(10) ** (int(power) - decimals) / 2


def same_number(answer: Number, gold: Number, tolerance: Fraction) -> bool:
    """Whether they are equal: 50 % may be written 50 or 0.5.

    Where one of them is a decimal and the gold is no integer they may differ by
    `tolerance`, as a share of the gold; fractions and integers are exact.
    """
    if answer.unit and gold.unit and answer.unit != gold.unit:
        (kind, size), (gold_kind, gold_size) = SIZES[answer.unit], SIZES[gold.unit]
        if kind != gold_kind:
            return False
        answer = dataclasses.replace(
            answer, value=answer.value * Fraction(size, gold_size)
        )
    allowed = gold.rounding
    if not gold.exact and (answer.decimal or gold.decimal):
        allowed = max(allowed, abs(gold.value) * tolerance)
    scale = Fraction(100) ** (gold.percent - answer.percent)
    return any(
        abs(value - gold.value) <= allowed
        for value in (answer.value, answer.value * scale)
    )
