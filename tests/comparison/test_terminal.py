"""What a terminal shows of a comparison."""

import io

from rich.console import Console

from lesa_jax.comparison.page import page
from lesa_jax.comparison.table import markdown, ordered
from lesa_jax.comparison.terminal import print_table, telling
from tests.support.comparisons import BASE_LOSS, HOSTILE, curve, grown, statistics


def printed(found, terminal: bool = True) -> str:
    file = io.StringIO()
    print_table(found, Console(file=file, force_terminal=terminal, width=100, color_system=None, markup=False))
    return file.getvalue()


def test_the_best_comes_first_and_what_failed_last():
    late = grown("solar", curves=(curve([BASE_LOSS, BASE_LOSS - 0.1]),))
    best = grown("lesa", curves=(curve([BASE_LOSS, BASE_LOSS - 0.3]),))
    failed = grown("tli", curves=(curve([BASE_LOSS, BASE_LOSS - 0.9]),), error="diverged")
    found = statistics(late, failed, best)
    assert [row.method for row in ordered(found)] == ["lesa", "solar", "base", "tli"]
    lines = [line for line in printed(found).splitlines() if "│" in line]
    assert [line.split("│")[1].strip() for line in lines] == ["lesa", "solar", "base", "tli"]
    assert printed(found).endswith("diverged\n")


def test_columns_that_are_the_same_of_all_are_left_out_on_a_terminal():
    found = statistics(grown("lesa"), grown("solar", "stacked"))
    assert [column.heading for column in telling(found)] == ["method", "initial perplexity", "placement"]


def test_elsewhere_it_is_the_markdown_table(capsys):
    found = statistics(grown("lesa"), grown("solar", "stacked"))
    assert printed(found, terminal=False) == ""
    assert capsys.readouterr().out == markdown(found) + "\n"


def test_what_comes_from_outside_is_no_markup():
    assert HOSTILE in printed(statistics(grown("lesa", error=HOSTILE))).replace("\n", "")


def test_the_page_says_in_a_line_what_each_method_is():
    text = page(statistics(grown("lesa"), grown("solar", "stacked")))
    assert "<h2>Methods</h2>" in text
    assert text.index("two overlapping copies") > text.index("<h2>Methods</h2>")
