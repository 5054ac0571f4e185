"""The report of a comparison, from numbers made up here: strict JSON, exact crossings, safe and whole HTML."""

import base64
import hashlib
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from lesa_jax.comparison.page import page
from lesa_jax.comparison.report import write_report
from lesa_jax.comparison.result import Comparison, Outcome, Point
from lesa_jax.comparison.statistics import crossing, labels, loss_range, mean_curve, rows
from lesa_jax.comparison.table import markdown
from lesa_jax.comparison.verdict import verdict
from lesa_jax.reports.charts import amount, linear_ticks, log_ticks, mean_sd, number, tick_texts
from lesa_jax.reports.palette import DASHES, PALETTE, style

HOSTILE = "<script>alert(\"x\")</script> | 'y' & </table> $a_1$ \\"
BASE_LOSS = math.log(40.0)
BASE = Outcome("base", "-", 4, (), 1000, 0, (40.0,))
VOID = {"meta", "br", "link", "img", "input", "hr"}


def curve(losses, step=100):
    """Evaluations `step` tokens apart, at 10 operations and half a second a token."""
    return tuple(Point(i * step, 10.0 * i * step, 0.5 * i * step, loss) for i, loss in enumerate(losses))


def grown(method="lesa", placement="top", initial=(44.0,), curves=(), **more):
    return Outcome(method, placement, 6, (4, 5), 1500, 500, initial, curves, **more)


def comparison(*outcomes, base=BASE, seeds=(0,), **more):
    values = {
        "model": "demo",
        "text": "held-out.txt",
        "protocol": "corpus",
        "sequence_length": 64,
        "train_data": "train.txt",
        "train_tokens": 200,
        "trained": "new layers",
        "command": "python -m lesa_jax.compare",
        "versions": {"lesa_jax": "0.1.0"},
    }
    return Comparison(seeds=seeds, outcomes=(base, *outcomes), **{**values, **more})


def trained(**more):
    """Two methods, three seeds."""
    falls = [BASE_LOSS + 0.1, BASE_LOSS - 0.1, BASE_LOSS - 0.2]
    stays = [BASE_LOSS + 0.5, BASE_LOSS + 0.2, BASE_LOSS + 0.1]
    curves = [
        tuple(curve([loss + noise for loss in losses]) for noise in (-0.01, 0.0, 0.01)) for losses in (falls, stays)
    ]
    first = grown(initial=(44.0, 44.5, 43.5), curves=curves[0], step_flops=5e6, backward_depth=2)
    return comparison(first, grown("solar", "stacked", (66.0,), curves[1], step_flops=6e6), seeds=(0, 1, 2), **more)


class Walk(HTMLParser):
    """Checks that tags close in order; keeps tags, attributes and text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data


def strict(text):
    def refuse(name):
        raise AssertionError(name)

    return json.loads(text, parse_constant=refuse)


def test_all_files(tmp_path):
    write_report(trained(), tmp_path / "new" / "folder")
    names = {file.name for file in (tmp_path / "new" / "folder").iterdir()}
    assert names == {"table.md", "table.json", "initial.png", "curves.png", "report.html"}
    for name in ("initial.png", "curves.png"):
        assert (tmp_path / "new" / "folder" / name).read_bytes().startswith(b"\x89PNG")
    assert strict((tmp_path / "new" / "folder" / "table.json").read_text()) == rows(trained())


def test_same_bytes_twice(tmp_path):
    for folder in ("a", "b"):
        write_report(trained(), tmp_path / folder)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_row():
    base, lesa, solar = rows(trained())
    assert base["initial_perplexity"] == 40.0
    assert base["initial_over_base"] == 1.0
    assert base["tokens_to_base"] is base["perplexity"] is base["tokens"] is None
    assert lesa["initial_perplexity"] == pytest.approx(44.0)
    assert lesa["initial_sd"] == pytest.approx(0.5)
    assert lesa["initial_over_base"] == pytest.approx(1.1)
    ends = [40.0 * math.exp(-0.2 + noise) for noise in (-0.01, 0.0, 0.01)]
    assert lesa["perplexity"] == pytest.approx(sum(ends) / 3)
    assert lesa["perplexity_sd"] == pytest.approx(math.sqrt(sum((end - sum(ends) / 3) ** 2 for end in ends) / 2))
    assert (lesa["tokens"], lesa["seeds"], lesa["backward_depth"], lesa["error"]) == (200, 3, 2, None)
    assert lesa["new_layers"] == [4, 5]
    assert solar["initial_sd"] is None
    assert solar["tokens_to_base"] is solar["flops_to_base"] is solar["seconds_to_base"] is None
    assert "step_cost_over_base" not in lesa


def test_crossing_is_linear_between_evaluations():
    lesa = rows(comparison(grown(curves=(curve([BASE_LOSS + 0.3, BASE_LOSS - 0.1]),))))[1]
    assert lesa["tokens_to_base"] == pytest.approx(75.0)
    assert lesa["flops_to_base"] == pytest.approx(750.0)
    assert lesa["seconds_to_base"] == pytest.approx(37.5)


def test_crossing_at_the_start_and_of_nothing():
    assert crossing(mean_curve([curve([2.0, 1.0])]), 2.0) == (0.0, 0.0, 0.0)
    assert crossing(mean_curve([curve([2.000001, 3.0])]), 2.0) == (0.0, 0.0, 0.0)  # a start equal but for rounding
    assert crossing(mean_curve([curve([3.0, 2.5])]), 2.0) is None
    assert crossing(mean_curve([curve([3.0, 1.0])]), None) is None
    assert crossing((), 2.0) is None


def test_crossing_is_of_the_mean_curve():
    both = comparison(grown(curves=(curve([BASE_LOSS + 0.2, BASE_LOSS]), curve([BASE_LOSS + 0.2, BASE_LOSS - 0.2]))))
    assert rows(both)[1]["tokens_to_base"] == pytest.approx(100 * 0.2 / 0.3)


def test_seed_that_stopped_early():
    cut = grown(curves=(curve([4.0, 3.8, 3.7]), curve([4.0, 3.9]), ()))
    row = rows(comparison(cut, seeds=(0, 1, 2)))[1]
    assert row["tokens"] == 100
    assert row["perplexity"] == pytest.approx((math.exp(3.8) + math.exp(3.9)) / 2)
    assert row["seeds"] == 2


def test_base_loss_of_lines_needs_a_measurement():
    lesa = grown(curves=(curve([3.0, 2.0]),))
    assert rows(comparison(lesa, protocol="line"))[1]["tokens_to_base"] is None
    measured = replace(BASE, curves=(curve([2.5]),))
    table = rows(comparison(lesa, base=measured, protocol="line"))
    assert table[1]["tokens_to_base"] == pytest.approx(50.0)
    assert table[0]["tokens"] is None


def test_trained_base(tmp_path):
    base = replace(BASE, curves=(curve([BASE_LOSS, BASE_LOSS - 0.3]),), step_flops=4e6)
    both = comparison(grown(curves=(curve([BASE_LOSS + 0.1, BASE_LOSS - 0.1]),), step_flops=5e6), base=base)
    table = rows(both)
    assert table[1]["step_cost_over_base"] == 1.25
    assert table[0]["step_cost_over_base"] == 1.0
    assert "base is lowest" in verdict(both)
    worse = replace(base, curves=(curve([BASE_LOSS, BASE_LOSS - 0.01]),))
    assert "; base, trained too, ends at 39.60" in verdict(comparison(both.outcomes[1], base=worse))
    assert "(1.25 x)" in markdown(both)
    write_report(both, tmp_path)


def test_failed_row(tmp_path):
    failed = grown("solar", "stacked", (), error="out of | memory\nat layer 3")
    both = comparison(failed, grown(curves=(curve([4.0, 3.0]),)))
    write_report(both, tmp_path)
    row = strict((tmp_path / "table.json").read_text())[1]
    assert row["error"] == "out of | memory\nat layer 3"
    assert row["initial_perplexity"] is row["perplexity"] is None
    assert row["seeds"] == 0
    last = markdown(both).strip().split("\n")[-1]
    assert last.startswith("| solar |")
    assert r"out of \| memory at layer 3" in last
    assert "1 of 3 rows failed" in verdict(both)
    assert "What went wrong" in page(both)
    assert "What went wrong" not in page(trained())


def test_hostile_strings(tmp_path):
    attack = grown(HOSTILE, HOSTILE, curves=(curve([4.0, 3.0]),), error=HOSTILE)
    more = dict.fromkeys(("model", "text", "protocol", "train_data", "trained", "command"), HOSTILE)
    both = comparison(attack, grown(HOSTILE, "_top"), versions={HOSTILE: HOSTILE}, **more)
    write_report(both, tmp_path)
    text = (tmp_path / "report.html").read_text()
    walk = Walk(text)
    assert walk.tags.count("script") == 1
    assert walk.tags.count("table") == 1
    assert HOSTILE in walk.text
    table = (tmp_path / "table.md").read_text()
    assert "<" not in table
    lines = [line for line in table.split("\n") if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in lines} == {12}


@pytest.mark.parametrize("make", [trained, lambda: comparison(grown()), lambda: comparison(grown(), base=BASE)])
def test_page_is_whole_and_needs_nothing(make):
    text = page(make())
    walk = Walk(text)
    assert not {name for name, _ in walk.attributes} & {"src", "href", "xlink:href", "style", "onclick"}
    assert not re.search(r"https?://|@import|url\((?!#)", text)
    assert {"html", "head", "title", "body", "table", "svg"} <= set(walk.tags)
    ids = [value for name, value in walk.attributes if name == "id"]
    assert len(ids) == len(set(ids))


def test_policy_allows_what_is_there():
    text = page(trained())
    (policy,) = re.findall(r'Policy" content="([^"]*)"', text)
    for tag in ("style", "script"):
        (inside,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")


def test_untrained(tmp_path):
    (tmp_path / "curves.png").write_bytes(b"of an earlier run")
    untrained = comparison(grown(), train_data=None, train_tokens=None, trained=None)
    write_report(untrained, tmp_path)
    assert not (tmp_path / "curves.png").exists()
    text = (tmp_path / "report.html").read_text()
    assert "During training" not in text
    assert "tokens to base" not in text
    assert "None" not in text + (tmp_path / "table.md").read_text()
    assert "nothing was trained" in text


def test_base_alone(tmp_path):
    write_report(comparison(), tmp_path)
    write_report(comparison(base=replace(BASE, initial=(), error="no tokenizer")), tmp_path / "failed")
    assert "No grown model was measured" in verdict(comparison())
    Walk((tmp_path / "failed" / "report.html").read_text())


def test_one_seed_has_no_deviation():
    one = comparison(grown(curves=(curve([4.0, 3.0]),)))
    row = rows(one)[1]
    assert row["initial_sd"] is row["perplexity_sd"] is None
    assert "+-" not in markdown(one)
    assert "±" not in page(one)
    assert "one seed" in verdict(one)
    assert "polygon" not in page(one)


@pytest.mark.parametrize("bad", [math.inf, math.nan, 1e4])
def test_infinite_perplexity(tmp_path, bad):
    burst = grown(initial=(math.inf,), curves=(curve([4.0, 3.0, bad]), curve([4.0, 3.2, 3.0])))
    write_report(comparison(burst, seeds=(0, 1)), tmp_path)
    row = strict((tmp_path / "table.json").read_text())[1]
    assert row["initial_perplexity"] is row["initial_over_base"] is row["perplexity"] is None
    assert "perplexity before training is not finite" in row["error"]
    assert "loss after 200 tokens is not finite" in row["error"]
    assert row["tokens_to_base"] is not None  # it was there before it diverged
    assert not re.search(r"\b(inf|nan)\b", (tmp_path / "report.html").read_text())


def test_verdict_says_what_is_close():
    def three(method, mean, sd):
        return grown(method, initial=(mean - sd, mean, mean + sd))

    close = comparison(three("a", 44.0, 1.0), three("b", 44.9, 0.1), three("c", 46.0, 0.1), seeds=(0, 1, 2))
    text = verdict(close)
    assert "a starts lowest, at perplexity 44.00 +- 1.00 (base: 40.00); none starts below base" in text
    assert "b is within one standard deviation of the lowest" in text
    assert "c" not in re.findall(r"\b[a-c]\b", text)
    assert "b starts below base" in verdict(comparison(grown("b", initial=(39.0,))))
    assert "a and b start lowest" in verdict(comparison(grown("a", initial=(40.0,)), grown("b", initial=(40.00001,))))


def test_verdict_on_the_ends():
    text = verdict(trained())
    assert "After 200 tokens, lesa is lowest" in text
    assert "1 of 2 grown models ends at or below base's initial loss" in text
    uneven = comparison(grown(curves=(curve([4.0, 3.0]),)), grown("b", curves=(curve([4.0, 3.0, 2.0]),)))
    assert "different numbers of tokens" in verdict(uneven)


def test_names_are_told_apart():
    deep = replace(grown(), layers=8)
    both = comparison(grown(), grown(placement="even"), deep, grown("solar"))
    assert labels(both) == ["base", "lesa (top, 6 layers)", "lesa (even)", "lesa (top, 8 layers)", "solar"]


def test_many_methods_look_different(tmp_path):
    count = len(PALETTE) * len(DASHES)
    assert len({style(position) for position in range(1, count + 1)}) == count
    outcomes = [grown(f"m{i}", initial=(41.0 + i,), curves=(curve([4.0, 3.0 + i / 99]),)) for i in range(20)]
    write_report(comparison(*outcomes), tmp_path)
    Walk((tmp_path / "report.html").read_text())


def test_range_shows_every_end_but_not_a_far_start():
    far = grown("far", curves=(curve([9.0, BASE_LOSS - 0.1]),))
    lost = grown("lost", curves=(curve([9.0, 9.0]),))
    low, high, above = loss_range(comparison(grown(curves=(curve([BASE_LOSS + 0.02, BASE_LOSS - 0.2]),)), far, lost))
    assert low < BASE_LOSS - 0.2
    assert BASE_LOSS + 0.02 < high < 5
    assert above == [2, 3]
    assert loss_range(comparison(grown()))[2] == []


def test_ticks():
    assert linear_ticks(0.0, 2.0, 5) == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert linear_ticks(3.77, 3.85, 6) == [3.78, 3.8, 3.82, 3.84]
    assert tick_texts([3.78, 3.8]) == ["3.78", "3.80"]
    assert tick_texts([50.0, 100.0]) == ["50", "100"]
    assert log_ticks(math.log(45), math.log(3000)) == [50, 100, 200, 500, 1000, 2000]
    assert len(log_ticks(math.log(2), math.log(1e30))) <= 6


def test_numbers():
    assert [number(value) for value in (45.4, 999.0, 3272.4, 1e6)] == ["45.40", "999.00", "3272", "1e+06"]
    assert mean_sd(3272.4, 10.28) == "3272 +- 10"
    assert mean_sd(45.4, 0.1) == "45.40 +- 0.10"
    assert mean_sd(None, None) == "-"
    assert [amount(value, "tokens") for value in (0.0, 95_523.0, 1_390_000.0)] == ["0", "95.5K", "1.39M"]
    assert [amount(value, "seconds") for value in (1.25, 90.0)] == ["1.2 s", "0:01:30"]
    assert amount(4.78e12, "flops") == "4.78 TFLOP"
