"""What is learned against what is forgotten: the frontier, its lines, its sentence, its pictures."""

import math
from dataclasses import replace

import pytest
from matplotlib.image import imread

from lesa_jax.comparison.page import page
from lesa_jax.comparison.pictures import draw_forgetting
from lesa_jax.comparison.report import write_report
from lesa_jax.comparison.result import Outcome, Point, ShortRun
from lesa_jax.comparison.statistics import summarise
from lesa_jax.comparison.table import COLUMNS
from lesa_jax.comparison.verdict import verdict
from tests.support.comparisons import BASE, Walk, comparison, grown, statistics, trained

KNOWN = 3.0  # base's loss on what was known


def both(*losses: tuple[float, float], step: int = 100) -> tuple[Point, ...]:
    """Evaluations of new text and of what was known."""
    return tuple(Point(i * step, 10.0 * i * step, 0.5 * i * step, *pair) for i, pair in enumerate(losses))


def forgetful(method: str, *ends: tuple[float, float], **more) -> Outcome:
    return grown(method, curves=tuple(both((4.0, KNOWN), end) for end in ends), **more)


def tried(*ends: tuple[float, float | None, float | None]) -> tuple[ShortRun, ...]:
    return tuple(ShortRun(rate, loss, 10, 1.0, 5.0, retained) for rate, loss, retained in ends)


BASE_TRAINED = replace(BASE, curves=(both((4.0, KNOWN), (2.5, 3.4)),))
ROWS = (
    forgetful("solar", (2.6, 3.5)),  # beaten by base in both
    forgetful("llama_pro", (2.7, 3.1), sweep=tried((1e-2, 2.4, 3.9), (1e-4, 3.2, 3.0), (1e-3, 2.9, 3.2))),
    forgetful("lesa", (3.0, 3.1), (3.2, 3.3)),  # two seeds: beaten by llama_pro
    forgetful("average", (3.5, 3.0)),
)


def test_the_frontier_is_what_no_other_row_beats_in_both():
    found = statistics(*ROWS, base=BASE_TRAINED, seeds=(0, 1))
    assert [found.labels[i] for i in found.frontier] == ["base", "llama_pro", "average"]
    assert "base, llama_pro and average are on the frontier: no other row learned more and forgot less." in verdict(
        found
    )


def test_rows_equal_but_for_rounding_do_not_beat_each_other():
    found = statistics(forgetful("lesa", (2.6, 3.1)), forgetful("solar", (2.6 - 1e-7, 3.1 - 1e-7)), base=BASE)
    assert found.frontier == (1, 2)


def test_retained_is_the_mean_over_seeds_and_held_against_base_before_training():
    row = statistics(*ROWS, base=BASE_TRAINED).rows[3]
    assert row.retained == pytest.approx((math.exp(3.1) + math.exp(3.3)) / 2)
    assert row.retained_sd == pytest.approx((math.exp(3.3) - math.exp(3.1)) / math.sqrt(2))
    assert row.retained_over_base == pytest.approx(math.exp(3.2 - KNOWN))
    [column] = [column for column in COLUMNS if column.heading == "what was known"]
    assert column.text(row) == "24.66 +- 3.48 (1.221 x)"


def test_best_rival_is_the_best_of_the_others_and_no_control():
    control = forgetful("identity", (2.0, 3.0))
    base, solar, pro, *_ = statistics(*ROWS, control, base=BASE_TRAINED).rows
    assert solar.over_best == pytest.approx(math.exp(2.6 - 2.7))
    assert solar.tokens_to_best == pytest.approx(100 * 1.3 / 1.4)
    assert (pro.tokens_to_best, pro.flops_to_best) == (None, None)
    assert base.flops_to_best == pytest.approx(1000 * 1.4 / 1.5)
    [column] = [column for column in COLUMNS if column.heading == "FLOPs to best rival"]
    assert [column.text(row) for row in (base, pro)] == ["933 FLOP", "not reached"]
    alone = statistics(ROWS[0]).rows[1]
    assert (alone.over_best, column.text(alone)) == (None, "-")


def test_base_trained_in_another_way_is_no_grown_model_but_a_rival():
    by_muon = replace(BASE, optimizer="muon", curves=(both((4.0, KNOWN), (2.0, 3.0)),))
    found = statistics(by_muon, *ROWS, base=replace(BASE_TRAINED, optimizer="adamw"))
    assert found.labels[:2] == ("base by adamw", "base by muon")
    assert found.rows[2].over_best == pytest.approx(math.exp(2.6 - 2.0))
    assert found.rows[1].over_best == pytest.approx(math.exp(2.0 - 2.6))
    assert 1 not in (*found.below_base, *found.at_base, *found.from_base, *found.at_trained_base, *found.below_control)
    assert found.lowest_end is not None
    assert found.lowest_end.positions == (1,)
    assert found.rows[1].over_trained_base == pytest.approx(math.exp(2.0 - 2.5))
    assert "4 of 4 grown models end at or below base's initial loss" in verdict(found)


def test_lines_go_along_training_and_short_runs_that_diverged_are_no_spots():
    forgetting = statistics(*ROWS, base=BASE_TRAINED).forgetting
    assert forgetting.base == KNOWN
    assert forgetting.training[2] == ((4.0, 2.7), (KNOWN, 3.1))
    diverged = forgetful("lesa", (2.7, 3.1), sweep=tried((1e-4, 3.2, 3.0), (1e-3, 2.9, 3.2), (1e-2, None, None)))
    [*_, short] = statistics(diverged).forgetting.frontiers
    assert {name: [spot.rate for spot in spots] for name, spots in short.methods.items()} == {"lesa": [1e-3, 1e-4]}


def test_pictures_and_page_show_it_only_where_it_was_measured(tmp_path):
    found = comparison(*ROWS, base=BASE_TRAINED)
    write_report(found, tmp_path)
    assert imread(tmp_path / "forgetting.png").shape[:2] == (650, 520 + 2 * 480)
    walk = Walk((tmp_path / "report.html").read_text())
    assert "Learning and forgetting" in walk.text
    assert "Ends of short runs" in walk.text
    draw_forgetting(statistics(*(replace(row, sweep=()) for row in ROWS), base=BASE_TRAINED), tmp_path / "one.png")
    assert imread(tmp_path / "one.png").shape[:2] == (650, 520 + 480)
    write_report(trained(), tmp_path)
    assert not (tmp_path / "forgetting.png").exists()
    assert "forgetting" not in page(summarise(trained()))
    assert summarise(trained()).frontier == ()
