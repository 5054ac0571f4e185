"""A row of the table: against trained base, against its control, and what its learning rate cost."""

import math
from dataclasses import replace

import pytest

from lesa_jax.comparison.result import ShortRun
from lesa_jax.comparison.table import markdown
from tests.support.comparisons import BASE, BASE_LOSS, curve, grown, rows, statistics, trained_base


def test_the_way_to_trained_base():
    """Base ends 0.3 below its start; the row is there after 150 of its 200 tokens."""
    lesa = grown(curves=(curve([BASE_LOSS, BASE_LOSS - 0.2, BASE_LOSS - 0.4]),))
    base, row = rows(lesa, base=trained_base([0.0, -0.1, -0.3]))
    assert (row.tokens_to_trained_base, row.flops_to_trained_base, row.seconds_to_trained_base) == pytest.approx(
        (150.0, 1500.0, 75.0)
    )
    assert base.tokens_to_trained_base is base.over_trained_base is base.over_trained_base_flops is None


def test_a_row_that_never_gets_there():
    lesa = grown(curves=(curve([BASE_LOSS, BASE_LOSS - 0.1, BASE_LOSS - 0.2]),))
    row = rows(lesa, base=trained_base([0.0, -0.1, -0.3]))[1]
    assert row.tokens_to_trained_base is row.flops_to_trained_base is row.seconds_to_trained_base is None
    assert row.over_trained_base == pytest.approx(math.exp(0.1))


def test_a_base_that_was_not_trained_is_no_target():
    row = rows(grown(curves=(curve([BASE_LOSS, BASE_LOSS - 0.2]),)))[1]
    assert row.tokens_to_base == 0
    assert row.tokens_to_trained_base is row.over_trained_base is row.over_trained_base_flops is None


def test_equal_tokens_are_not_equal_operations():
    """A row whose step costs twice base's has spent base's operations when it is half-way."""
    dear = tuple(
        replace(point, flops=2 * point.flops) for point in curve([BASE_LOSS, BASE_LOSS - 0.2, BASE_LOSS - 0.4])
    )
    row = rows(grown(curves=(dear,)), base=trained_base([0.0, -0.1, -0.3]))[1]
    assert row.over_trained_base == pytest.approx(math.exp(-0.4 + 0.3))
    assert row.over_trained_base_flops == pytest.approx(math.exp(-0.2 + 0.3))
    cheap = tuple(
        replace(point, flops=point.flops / 2) for point in curve([BASE_LOSS, BASE_LOSS - 0.2, BASE_LOSS - 0.4])
    )
    row = rows(grown(curves=(cheap,)), base=trained_base([0.0, -0.1, -0.3]))[1]
    assert row.over_trained_base_flops == pytest.approx(math.exp(-0.4 + 0.1))


def test_a_row_is_held_against_its_control():
    lesa = grown(curves=(curve([BASE_LOSS + 0.1, BASE_LOSS - 0.2]),), control=2)
    identity = grown("identity", curves=(curve([BASE_LOSS, BASE_LOSS - 0.1]),))
    found = statistics(lesa, identity)
    assert found.rows[1].control == "identity"
    assert found.rows[1].over_control == pytest.approx(math.exp(-0.1))
    assert found.below_control == (1,)
    assert found.rows[2].control is found.rows[2].over_control is None
    failed = replace(identity, curves=(), error="gone")
    assert rows(lesa, failed)[1].over_control is None


def test_what_starts_at_base_is_told_from_what_starts_below():
    silent = grown("silent", initial=(40.0,), curves=(curve([BASE_LOSS, BASE_LOSS - 0.2]),))
    below = grown("below", initial=(39.0,), curves=(curve([BASE_LOSS - 0.02, BASE_LOSS - 0.2]),))
    assert statistics(silent, below).from_base == (1,)


def test_the_cost_of_a_sweep_counts_runs_that_diverged():
    sweep = (ShortRun(1e-3, 3.0, 50, 2.0, 4e6), ShortRun(1e-1, None, 50, 1.0, None))
    row = rows(grown(learning_rate=1e-3, sweep=sweep))[1]
    assert (row.learning_rate, row.sweep_tokens, row.sweep_flops, row.sweep_seconds) == (1e-3, 100, 4e8, 3.0)
    row = rows(grown(sweep=sweep[1:]))[1]
    assert (row.sweep_tokens, row.sweep_flops) == (50, None)
    assert rows(grown())[1].sweep_tokens is None


def test_names():
    found = statistics(
        grown("duplicate", "even", also=("tli",)),
        grown("identity", "overlap", like="solar"),
        grown("identity"),
        base=BASE,
    )
    assert found.labels == ("base", "duplicate = tli", "identity as solar", "identity")
    assert [(row.name, row.also) for row in found.rows[1:2]] == [("duplicate = tli", ("tli",))]


def test_rows_that_replay_say_so():
    replayed = replace(BASE, replay=0.125)
    found = statistics(replayed, *(grown(replay=share, optimizer="muon") for share in (0.0, 0.1)),
                       base=replace(BASE, replay=0.0))  # fmt: skip
    assert found.labels == ("base", "base, 12.5 % replay", "lesa by muon", "lesa by muon, 10 % replay")
    assert [row.replay for row in found.rows] == [0.0, 0.125, 0.0, 0.1]
    assert "| 12.5 % |" in markdown(found)
    assert "replay" not in markdown(statistics(grown()))
