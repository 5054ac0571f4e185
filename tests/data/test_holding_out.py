"""Rows that are held out of training data: none of them is trained on, all others are."""

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lesa_jax.data.holding_out import SCARCE, numbers_to_hold_out
from lesa_jax.data.mixture import Mixture
from lesa_jax.data.packing import pack_rows
from tests.support.stores import store_of


def tokens(rows) -> list[list[int]]:
    return [rows[number]["tokens"].tolist() for number in range(len(rows))]


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(0, 8))
def test_every_row_is_either_trained_on_or_held_out(rows, most):
    whole = Mixture((pack_rows(store_of([4] * rows), 4),), (1.0,))
    remaining, held = whole.hold_out(most)
    assert len(held) == min(most, rows // SCARCE)
    kept, left = tokens(remaining), [row["tokens"].tolist() for row in held]
    assert kept == sorted(kept)  # tokens are their own places
    assert left == sorted(left)
    assert sorted(kept + left) == tokens(whole)
    assert (remaining.digest == whole.digest) == (not held)


@given(st.integers(SCARCE, 10**12), st.integers(1, 100))
def test_what_is_held_out_is_spread_evenly(rows, most):
    numbers = numbers_to_hold_out(rows, most)
    share = rows / len(numbers)
    for number, (start, end) in zip(numbers, itertools.pairwise(np.arange(len(numbers) + 1) * share), strict=True):
        assert start <= number < end


def test_of_a_mixture_the_first_part_is_measured():
    new, old = (pack_rows(store_of([4] * count), 4) for count in (150, 200))
    remaining, held = Mixture((new, old), (0.9, 0.1)).hold_out(64)
    assert [len(part) for part in remaining.parts] == [147, 200]
    assert remaining.shares == (0.9, 0.1)
    assert len(held) == 3
    assert len(remaining) == 347
