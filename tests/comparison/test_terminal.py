"""What a terminal shows of a comparison."""

import io

from rich.console import Console

from lesa_jax.comparison.page import page
from lesa_jax.comparison.table import markdown, ordered, split_columns
from lesa_jax.comparison.terminal import print_table
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


def test_columns_that_are_the_same_of_all_stand_in_no_table_but_below_it():
    found = statistics(grown("lesa"), grown("solar", "stacked"))
    differing, alike = split_columns(found)
    assert [column.heading for column in differing] == ["method", "initial perplexity", "placement"]
    assert [column.heading for column in alike] == ["against base", "layers", "parameters"]
    assert "parameters" not in printed(found)
    row = found.rows[1]
    assert f"Alike in all grown models: against base {row.initial_over_base:.3f}, layers {row.layers}, " in page(found)


def test_of_a_single_grown_model_all_is_shown():
    differing, alike = split_columns(statistics(grown("lesa")))
    assert "parameters" in [column.heading for column in differing]
    assert not alike


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
