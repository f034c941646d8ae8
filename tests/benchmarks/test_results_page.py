"""Numbers in the documents are in the results of benchmarks."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import record
import results_page

from ovd_jax.cli.config_files import ROOT

DOCS = ROOT / "docs"
DOCUMENTS = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
LINK = re.compile(r"\]\(\s*(?!http)([^)#\s]*)(?:#([^)\s]*))?\)")
UNITS = {  # what a number in a JSON is multiplied by, as it may be in another unit
    "%": (100.0,),
    "s": (1.0,),
    "ms": (1.0,),
    "minutes": (1 / 60,),
    "KiB": (1.0, 2**-10),
    "MiB": (1.0, 2**-20),
    "GiB": (1.0, 2**-10, 2**-30),
    "MB": (1.0, 1e-6),
    "GB": (1.0, 1e-9),
    "tokens/s": (1.0,),
    "GFLOP/s": (1.0,),
    "times": (1.0,),
    "": (1.0, 100.0, 2**-10, 2**-20, 2**-30, 1e-6, 1e-9),
}
NUMBER = r"(?<![\w.,])(\d[\d,]*(?:\.\d+)?)"
MEASURED = re.compile(rf"{NUMBER}(?:\s({'|'.join(filter(None, UNITS))})\b|\s?(%))")
# Beside those, in tables whose unit stands above; 3.1 may be a section's.
EXACT = re.compile(r"(?<![\w.,])(\d[\d,]*\.\d\d+)()()(?!\s(?:\w|%))")
# All that is not small and whole, whatever stands behind it.
LONG = re.compile(
    r"(?<![\w.,])(\d[\d,]*\.\d+|\d{1,3}(?:,\d{3})+|\d{3,})()()(?![\w.]*\w)"
)
# Of the settings: MATH-500, clip_high, 20 steps of 64 conversations.
SETTINGS = {"500", "0.28", "1,280"}
NOT_OURS = re.compile(r'```.*?```|^ {4}.*?$|`[^`]*`|"[^"\n]*"|\]\([^)]*\)', re.M | re.S)


def values(result) -> Iterator[float]:
    """Every number of a JSON."""
    if isinstance(result, dict | list):
        inner = result.values() if isinstance(result, dict) else result
        for value in inner:
            yield from values(value)
    elif isinstance(result, int | float) and not isinstance(result, bool):
        yield abs(float(result))


def measured(text: str, pattern: re.Pattern) -> Iterator[tuple[str, str]]:
    """(number, unit) of all that is not code, a link or the words of others."""
    for match in pattern.finditer(NOT_OURS.sub(" ", text)):
        yield match[1].rstrip(","), match[2] or match[3] or ""


def is_among(written: str, unit: str, known: list[float]) -> bool:
    """Whether a number, rounded as it is written, is one of `known`."""
    digits = len(written.partition(".")[2])
    value, half = float(written.replace(",", "")), 0.5 * 10**-digits + 1e-9
    return any(abs(x * s - value) <= half for x in known for s in UNITS[unit])


def missing(text: str, result: dict) -> list[str]:
    """The numbers of a text that its JSON does not have."""
    known = list(values(result))
    found = [*measured(text, MEASURED), *measured(text, EXACT)]
    return [f"{n} {unit}" for n, unit in found if not is_among(n, unit, known)]


def test_the_results_page_is_what_its_program_makes_of_the_jsons():
    """Else run `python benchmarks/results_page.py`."""
    assert results_page.PAGE.read_text("utf-8") == results_page.page()


def test_a_benchmark_without_results_has_no_section(tmp_path):
    assert results_page.page(tmp_path) == results_page.HEAD


@pytest.mark.parametrize("name", ["memory", "theory"])
def test_numbers_of_a_document_are_in_its_json(name):
    text = (DOCS / f"{name}.md").read_text("utf-8")
    assert missing(text, record.read_json(record.PUBLISHED / f"{name}.json")) == []


def test_numbers_of_the_readme_are_in_the_documents():
    shown = "".join(path.read_text("utf-8") for path in sorted(DOCS.glob("*.md")))
    known = set(re.findall(NUMBER, shown))
    readme = (ROOT / "README.md").read_text("utf-8")
    for pattern in (MEASURED, LONG):
        numbers = {number for number, _ in measured(readme, pattern)} - SETTINGS
        assert len(numbers) > 20
        assert numbers <= known, numbers - known


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(path):
    for file, anchor in LINK.findall(path.read_text("utf-8")):
        target = path.parent / file if file else path
        assert target.exists(), file
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text("utf-8"), re.M)
            assert anchor in map(anchor_of, headings), (file, anchor)


def anchor_of(heading: str) -> str:
    """The anchor that a heading gets."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("it took 18.4 s and 45.5 %", []),
        ("it took 18.5 s", ["18.5 s"]),
        ("from 45.6 %, or 46 %", ["45.6 %"]),
        ("1.21 GiB, 1,240 MiB", []),
        ("1.24 GiB", ["1.24 GiB"]),
        ("| a | 0.46 | 0.47 |", ["0.47 "]),
        ("`9.9 s` and [9.9 s](9.9.md)", ["9.9 s"]),
    ],
)
def test_a_number_that_no_json_has_is_found(text, wrong):
    result = {"seconds": 18.4006, "rows": [{"accuracy": 0.455, "rss_mib": 1240.498}]}
    assert missing(text, json.loads(json.dumps(result))) == wrong
