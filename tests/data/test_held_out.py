"""What is held out of the data: the last rows, of plain documents, and never trained on."""

import numpy as np
import pytest

from lesa_jax.data.held_out import MOST, hold_out
from lesa_jax.data.mixture import Mixture
from lesa_jax.data.packing import pack_rows
from lesa_jax.data.store import TokenStore


def mixture(documents: int, masked: bool = False, seed: int = 0) -> Mixture:
    """Rows of 8 tokens of documents of 1 to 20; every token is its own place in the store plus 1, as far as they go."""
    lengths = np.random.default_rng(seed).integers(1, 9 if masked else 21, documents)
    offsets = np.cumsum([0, *lengths], dtype=np.int64)
    mask = np.ones(offsets[-1], np.uint8) if masked else None
    store = TokenStore(np.arange(1, offsets[-1] + 1, dtype=np.uint32), offsets, mask, 0, 0, f"digest {seed}")
    return Mixture((pack_rows(store, 8),), (1.0,))


@pytest.mark.parametrize("documents", [100, 1000, 20_000])
def test_the_last_hundredth_is_left_out_and_comes_by_documents(documents):
    rows = mixture(documents)
    kept, held = hold_out(rows)
    count = min(MOST, len(rows) // 100)
    assert len(kept) == len(rows) - count
    for index in (0, len(kept) - 1):
        np.testing.assert_array_equal(kept[index]["tokens"], rows[index]["tokens"])
    trained = {int(token) for index in range(len(kept)) for token in kept[index]["tokens"]}
    found = np.concatenate(held)
    assert trained.isdisjoint(found.tolist())
    assert len(held) >= count > 0
    store = rows.parts[0].store
    document = np.repeat(np.arange(documents), np.diff(store.offsets))
    for piece in held:
        assert 2 <= len(piece) <= 8
        assert len(set(document[piece - 1])) == 1
        np.testing.assert_array_equal(np.diff(piece), 1)


def test_rows_without_what_is_held_out_are_other_data():
    rows = mixture(1000)
    kept, _ = hold_out(rows)
    assert kept.digest != rows.digest
    assert kept.digest == hold_out(mixture(1000))[0].digest


def test_of_several_data_the_first_is_held_out_of():
    first, second = mixture(1000).parts[0], mixture(500, seed=1).parts[0]
    kept, held = hold_out(Mixture((first, second), (0.9, 0.1)))
    assert kept.shares == (0.9, 0.1)
    assert len(kept.parts[0]) < len(first)
    assert len(kept.parts[1]) == len(second)
    assert min(map(min, held)) > 0.95 * first.store.offsets[-1]


@pytest.mark.parametrize("rows", [mixture(50), mixture(3000, masked=True)], ids=["few", "conversations"])
def test_of_few_rows_and_of_conversations_nothing_is(rows):
    kept, held = hold_out(rows)
    assert kept is rows
    assert held == []
