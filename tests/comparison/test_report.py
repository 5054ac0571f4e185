"""The files of a report: which there are, that they are whole, and the same for the same comparison."""

import json
import math
import re
from dataclasses import replace

import pytest

from lesa_jax.comparison.report import write_report
from lesa_jax.comparison.statistics import summarise
from lesa_jax.comparison.table import records
from tests.support.comparisons import (
    BASE,
    BASE_LOSS,
    HOSTILE,
    Walk,
    comparison,
    curve,
    grown,
    strict,
    trained,
)


def test_all_files(tmp_path):
    write_report(trained(), tmp_path / "new" / "folder")
    names = {file.name for file in (tmp_path / "new" / "folder").iterdir()}
    assert names == {"table.md", "table.json", "initial.png", "curves.png", "report.html"}
    for name in ("initial.png", "curves.png"):
        assert (tmp_path / "new" / "folder" / name).read_bytes().startswith(b"\x89PNG")
    written = strict((tmp_path / "new" / "folder" / "table.json").read_text())
    assert written == json.loads(json.dumps(records(summarise(trained()))))


def test_same_bytes_twice(tmp_path):
    for folder in ("a", "b"):
        write_report(trained(), tmp_path / folder)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_untrained(tmp_path):
    (tmp_path / "curves.png").write_bytes(b"of an earlier run")
    write_report(comparison(grown(), train_data=None, train_tokens=None, trained=None), tmp_path)
    assert not (tmp_path / "curves.png").exists()
    text = (tmp_path / "report.html").read_text()
    assert "During training" not in text
    assert "tokens to base" not in text
    assert "None" not in text + (tmp_path / "table.md").read_text()
    assert "nothing was trained" in text


def test_failed_row(tmp_path):
    write_report(comparison(grown("solar", "stacked", (), error="no | memory\nat all"), grown()), tmp_path)
    row = strict((tmp_path / "table.json").read_text())[1]
    assert row["error"] == "no | memory\nat all"
    assert row["initial_perplexity"] is row["perplexity"] is None


def test_base_alone(tmp_path):
    write_report(comparison(), tmp_path)
    Walk((tmp_path / "report.html").read_text())
    write_report(comparison(base=replace(BASE, initial=(), error="no tokenizer")), tmp_path / "failed")
    Walk((tmp_path / "failed" / "report.html").read_text())


def test_trained_base(tmp_path):
    base = replace(BASE, curves=(curve([BASE_LOSS, BASE_LOSS - 0.3]),), step_flops=4e6)
    lesa = grown(curves=(curve([BASE_LOSS + 0.1, BASE_LOSS - 0.1]),), step_flops=5e6)
    write_report(comparison(lesa, base=base), tmp_path)
    table = strict((tmp_path / "table.json").read_text())
    assert [row["step_cost_over_base"] for row in table] == [1.0, 1.25]


@pytest.mark.parametrize("bad", [math.inf, math.nan, 1e4])
def test_what_is_not_finite_is_null(tmp_path, bad):
    burst = grown(initial=(math.inf,), curves=(curve([4.0, 3.0, bad]), curve([4.0, 3.2, 3.0])))
    write_report(comparison(burst, seeds=(0, 1)), tmp_path)
    row = strict((tmp_path / "table.json").read_text())[1]
    assert row["initial_perplexity"] is row["initial_over_base"] is row["perplexity"] is None
    assert not re.search(r"\b(inf|nan)\b", (tmp_path / "report.html").read_text())


def test_a_run_too_short_to_know_its_speed(tmp_path):
    timeless = tuple(replace(point, seconds=math.nan) for point in curve([4.0, 3.0]))
    write_report(comparison(grown(curves=(timeless,))), tmp_path / "alone")
    text = (tmp_path / "alone" / "report.html").read_text()
    assert "Against tokens" in text
    assert "Against wall-clock time" not in text
    write_report(comparison(grown(curves=(timeless,)), grown("b", curves=(curve([4.0, 3.0]),))), tmp_path / "both")
    text = (tmp_path / "both" / "report.html").read_text()
    assert "Against wall-clock time" in text
    assert not re.search(r"\bnan\b", text)


def test_hostile_strings_and_many_methods_are_drawn(tmp_path):
    outcomes = [grown(f"m{i}", initial=(41.0 + i,), curves=(curve([4.0, 3.0 + i / 99]),)) for i in range(20)]
    write_report(comparison(grown(HOSTILE, HOSTILE, curves=(curve([4.0, 3.0]),), error=HOSTILE), *outcomes), tmp_path)
    Walk((tmp_path / "report.html").read_text())
