"""Packing: every prediction inside a document happens once, and nothing is predicted across documents."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesa_jax.data.packing import pack_rows
from lesa_jax.data.store import TokenStore
from tests.support.stores import store_of

LENGTHS = st.lists(st.integers(2, 25), min_size=1, max_size=20)


def check_rows(store: TokenStore, length: int) -> list[dict[str, np.ndarray]]:
    """All rows, checked against the definition, token by token."""
    rows = pack_rows(store, length)
    rows = [rows[index] for index in range(len(rows))]
    document = np.repeat(np.arange(len(store.offsets) - 1), np.diff(store.offsets))
    for row in rows:
        assert {key: (value.shape, value.dtype) for key, value in row.items()} == {
            **dict.fromkeys(("tokens", "targets", "segment_ids", "positions"), ((length,), np.int32)),
            "weights": ((length,), np.float32),
        }
        used = int((row["tokens"] > 0).sum())
        for key, value in row.items():
            assert not value[used:].any(), key
        places = row["tokens"][:used] - 1
        np.testing.assert_array_equal(row["targets"][:used], places + 2)
        in_row = document[places]
        for i, place in enumerate(places):
            assert row["segment_ids"][i] == in_row[i] - in_row[0] + 1
            assert row["positions"][i] == np.sum(in_row[:i] == in_row[i])
            target = place + 1
            same = document[target] == document[place]
            wanted = same and (store.mask is None or store.mask[target] == 1)
            assert row["weights"][i] == float(wanted)
        assert row["weights"].any()
    return rows


def predicted(rows: list[dict[str, np.ndarray]]) -> list[int]:
    return sorted(int(target) for row in rows for target in row["targets"][row["weights"] > 0])


@given(LENGTHS, st.integers(1, 30))
def test_texts_every_token_with_a_predecessor_in_its_document_is_predicted_once(lengths, length):
    store = store_of(lengths)
    first = set(store.offsets[:-1].tolist())
    assert predicted(check_rows(store, length)) == [p + 1 for p in range(sum(lengths)) if p not in first]


@given(LENGTHS, st.integers(24, 60), st.integers(0, 2**32 - 1))
def test_conversations_every_assistant_token_is_predicted_once_and_none_is_split(lengths, length, seed):
    mask = np.random.default_rng(seed).integers(0, 2, sum(lengths), dtype=np.uint8)
    store = store_of(lengths)
    mask[store.offsets[1:] - 1] = 1  # what the cache guarantees: each has something to learn
    store = store_of(lengths, mask)
    rows = check_rows(store, length)
    starts = store.offsets[:-1]
    assert predicted(rows) == [p + 1 for p in range(sum(lengths)) if mask[p] and p not in starts]
    sizes = []
    for row in rows:
        assert row["tokens"][0] - 1 in starts
        sizes.append(int(row["targets"].max() - row["tokens"][0] + 1))
    assert sum(sizes) == sum(lengths)
    # Next fit: the first conversation of a row did not fit into the row before.
    ends = np.cumsum(sizes)
    for end, size in zip(ends[:-1], sizes, strict=False):
        following = lengths[int(np.searchsorted(starts, end))]
        assert size + following > length + 1


def test_a_row_of_two_documents_as_written_by_hand():
    rows = pack_rows(store_of([3, 4]), 4)
    assert len(rows) == 2
    assert {key: value.tolist() for key, value in rows[0].items()} == {
        "tokens": [1, 2, 3, 4],
        "targets": [2, 3, 4, 5],
        "segment_ids": [1, 1, 1, 2],
        "positions": [0, 1, 2, 0],
        "weights": [1, 1, 0, 1],
    }
    assert {key: value.tolist() for key, value in rows[1].items()} == {
        "tokens": [5, 6, 0, 0],
        "targets": [6, 7, 0, 0],
        "segment_ids": [1, 1, 0, 0],
        "positions": [0, 1, 0, 0],
        "weights": [1, 1, 0, 0],
    }


def test_rows_end_like_a_sequence():
    rows = pack_rows(store_of([9]), 4)
    assert len(list(rows)) == len(rows) == 2
    with pytest.raises(IndexError):
        rows[2]


def test_lengths_that_cannot_be_packed_are_errors():
    with pytest.raises(ValueError, match="conversation of 6 tokens does not fit into 5"):
        pack_rows(store_of([2, 6], np.ones(8, np.uint8)), 4)
    with pytest.raises(ValueError, match="sequence length 0"):
        pack_rows(store_of([2]), 0)
