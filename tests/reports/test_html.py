"""The shell of a page, and its table."""

import base64
import hashlib
import re

from lesa_jax.reports.html import Heading, Line, definitions, page, table
from tests.support.comparisons import HOSTILE, Walk


def test_policy_allows_what_is_there():
    text = page("title", "<p>body</p>")
    (policy,) = re.findall(r'Policy" content="([^"]*)"', text)
    for tag in ("style", "script"):
        (inside,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")


def test_a_page_is_whole():
    walk = Walk(page(HOSTILE, "<p>body</p>"))
    assert walk.tags.count("script") == 1
    assert HOSTILE in walk.text
    assert "body" in walk.text


def test_a_table_carries_what_it_is_sorted_by():
    headings = [Heading("name", word=True), Heading("size")]
    text = table(
        "Sizes", headings, [Line([("a", "a"), ("1.00 +- 0.50", 1.0)]), Line([("b", "b"), ("-", None)], "failed")]
    )
    Walk(text)
    assert '<tr><th scope="row" class="word" data-value="a">a</th><td data-value="1.0">1.00 ± 0.50</td></tr>' in text
    assert '<tr class="failed"><th scope="row" class="word" data-value="b">b</th><td data-value="">-</td></tr>' in text


def test_tables_and_definitions_are_text():
    for text in (
        table(HOSTILE, [Heading(HOSTILE)], [Line([(HOSTILE, HOSTILE)])]),
        definitions([(HOSTILE, HOSTILE)]),
    ):
        walk = Walk(text)
        assert "script" not in walk.tags
        assert walk.text.count(HOSTILE) == 2
