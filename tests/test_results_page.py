"""Numbers in the documents are in the results of benchmarks."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import results_page


def test_the_results_page_is_what_its_program_makes_of_the_jsons():
    """Else run `python benchmarks/results_page.py`."""
    assert results_page.PAGE.read_text("utf-8") == results_page.page()


def test_a_benchmark_without_results_has_no_section(tmp_path):
    assert results_page.page(tmp_path) == results_page.HEAD
