"""Results in an interpreter and in a notebook: what is worth knowing, in a line and in a table, never as markup."""

import re
from dataclasses import dataclass
from html import unescape

import pytest

from lesa_jax import demo
from lesa_jax.comparison.result import Comparison, Outcome, Point
from lesa_jax.expand import expand
from lesa_jax.reports.facts import LINE, Facts
from lesa_jax.ungrow import ungrow
from tests.support.tiny import tiny


@dataclass(frozen=True, repr=False)
class Found(Facts):
    rows: tuple[tuple[str, str], ...]

    @property
    def facts(self) -> tuple[tuple[str, str], ...]:
        return self.rows


def table(result: Facts) -> list[tuple[str, str]]:
    cells = re.findall(r"<tr><th[^>]*>(.*?)</th><td[^>]*>(.*?)</td></tr>", result._repr_html_())
    return [(unescape(name), unescape(value)) for name, value in cells]


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ((), "Found()"),
        ((("layers", "4 -> 6"), ("output", "out")), "Found(layers 4 -> 6, output out)"),
        ((("layers", "4 -> 6"), ("plan", "x" * LINE)), "Found(layers 4 -> 6, ...)"),
        ((("plan", "x" * LINE),), "Found(...)"),
    ],
)
def test_a_line_is_short_and_a_table_whole(rows, line):
    found = Found(rows)
    assert repr(found) == line
    assert len(line) <= LINE
    assert table(found) == list(rows)


def test_a_name_is_no_markup():
    found = Found((("<b>&", "<script>alert(1)</script>"),))
    assert "<script" not in found._repr_html_()
    assert table(found) == list(found.rows)


def test_of_an_expansion_and_its_way_back(tmp_path):
    grown = expand(model=str(tiny("llama")), output=tmp_path / "grown", method="duplicate", gaps="1,2")
    facts = dict(table(grown))
    assert facts["layers"] == "6 -> 8"
    assert facts["plan"] == str(grown.plan)
    assert facts["output"] == str(tmp_path / "grown")
    assert "perplexity" not in facts  # which was not measured
    assert repr(grown).startswith("ExpandResult(method duplicate, layers 6 -> 8, parameters ")
    back = ungrow(model=str(tmp_path / "grown"), output=tmp_path / "back")
    assert dict(table(back))["parameters"] == "{1:,} -> {0:,}".format(*grown.parameters)
    planned = expand(model=str(demo.MODEL_DIRECTORY), output=tmp_path / "planned", dry_run=True)
    assert dict(table(planned))["output"] == "none, a dry run"


def test_of_a_comparison():
    def outcome(method: str, **more) -> Outcome:
        return Outcome(method, "-" if method == "base" else "top", 4, (), 10, 0, **more)

    curve = (Point(0, 0.0, 0.0, 3.0), Point(100, 1.0, 1.0, 2.0))
    rows = (
        outcome("base", initial=(20.0,)),
        outcome("lesa", initial=(21.0, 23.0), curves=(curve, curve)),
        outcome("solar", initial=(1e4,), curves=((),)),
        outcome("average", error="no room"),
    )
    found = Comparison("m", "t", "corpus", 128, "corpus.txt", 1000, "new", (0, 1), rows, "compare", {})
    assert found.facts == (
        ("model", "perplexity -> after 1,000 tokens"),
        ("base", "20.00"),
        ("lesa, top", "22.00 -> 7.39"),
        ("solar, top", "10000"),
        ("average, top", "failed: no room"),
    )
    assert repr(found).startswith("Comparison(model perplexity -> after 1,000 tokens, base 20.00, lesa, top 22.00")
