"""The loader: an order that depends on the seed alone, whatever the number of processes and restarts."""

import itertools
import json
from contextlib import closing

import numpy as np
import pytest

from lesa_jax.base.errors import InputError
from lesa_jax.data.loader import make_loader
from lesa_jax.data.mixture import turn


class Rows:
    """Rows that are their own index, and remember who asked for them."""

    def __init__(
        self, count: int, digest: str = "content", first: int | None = None, shares: tuple[float, ...] = (1.0,)
    ):
        self.count = count
        self.digest = digest
        self.bounds = (0, count) if first is None else (0, first, count)
        self.shares = shares
        self.asked: set[int] = set()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        self.asked.add(index)
        return {"tokens": np.full(3, index, np.int32), "weights": np.ones(3, np.float32)}


def order(count: int, batches: int, *arguments: int, state: dict | None = None) -> list[list[int]]:
    """Row numbers of the first `batches` batches."""
    with closing(make_loader(Rows(count), *arguments)) as loader:
        if state is not None:
            loader.set_state(state)
        return [batch["tokens"][:, 0].tolist() for batch in itertools.islice(loader, batches)]


def test_batches_are_stacked_rows():
    with closing(make_loader(Rows(10), 4, 0)) as loader:
        batch = next(loader)
    assert {key: (value.shape, value.dtype) for key, value in batch.items()} == {
        "tokens": ((4, 3), np.int32),
        "weights": ((4, 3), np.float32),
    }


@pytest.mark.parametrize("count", [1, 2, 3, 10, 97])
def test_every_epoch_has_every_row_once_in_an_order_of_its_own(count):
    stream = list(itertools.chain(*order(count, count, 4, 7)))  # four epochs
    epochs = [stream[start : start + count] for start in range(0, 4 * count, count)]
    assert all(sorted(epoch) == list(range(count)) for epoch in epochs)
    if count >= 10:
        assert len({tuple(epoch) for epoch in [*epochs, range(count)]}) == 5


def test_the_global_batch_is_the_same_for_any_number_of_processes():
    whole = order(23, 9, 12, 5)
    for processes in (2, 3, 12):
        parts = [order(23, 9, 12 // processes, 5, index, processes) for index in range(processes)]
        joined = [list(itertools.chain(*blocks)) for blocks in zip(*parts, strict=True)]
        assert joined == whole


def test_a_process_reads_its_own_rows_only():
    rows = Rows(1000)
    with closing(make_loader(rows, 2, 0, 1, 4)) as loader:
        next(loader)
    assert len(rows.asked) <= 2 * 6  # the batch and those read ahead


def test_seeds_differ_and_a_seed_is_repeatable():
    epochs = {seed: list(itertools.chain(*order(50, 10, 10, seed))) for seed in range(4)}
    assert order(50, 5, 10, 2) == order(50, 5, 10, 2)
    starts = {tuple(stream[:50]) for stream in epochs.values()} | {tuple(stream[50:]) for stream in epochs.values()}
    assert len(starts) == 8  # no epoch of a seed is an epoch of its neighbour


@pytest.mark.parametrize("taken", [0, 1, 7, 40])
def test_a_restored_loader_goes_on_with_the_same_batches(taken):
    with closing(make_loader(Rows(23), 4, 3)) as loader:
        for _ in range(taken):
            next(loader)
        state = json.loads(json.dumps(loader.get_state()))
        expected = [next(loader)["tokens"][:, 0].tolist() for _ in range(9)]
        assert order(23, 9, 4, 3, state=state) == expected
        loader.set_state(state)  # also where it came from, with batches read ahead
        assert [next(loader)["tokens"][:, 0].tolist() for _ in range(9)] == expected
    two = [order(23, 9, 2, 3, index, 2, state=state) for index in range(2)]
    assert [first + second for first, second in zip(*two, strict=True)] == expected


@pytest.mark.parametrize(
    ("arguments", "name"), [((24, 4, 3), "rows"), ((23, 4, 4), "seed"), ((23, 5, 3), "global_batch")]
)
def test_a_state_of_another_run_is_refused(arguments, name):
    with closing(make_loader(Rows(23), 4, 3)) as loader:
        state = loader.get_state()
    with pytest.raises(InputError, match=f"has {name} "):
        order(arguments[0], 1, *arguments[1:], state=state)


def test_a_state_of_other_data_with_as_many_rows_is_refused():
    with closing(make_loader(Rows(23), 4, 3)) as loader:
        state = loader.get_state()
    refusal = "has data content, this run has 0123456789ab; continue with the data"
    with closing(make_loader(Rows(23, "0123456789abcdef"), 4, 3)) as loader, pytest.raises(InputError, match=refusal):
        loader.set_state(state)


@pytest.mark.parametrize("arguments", [(0, 0), (4, -1), (4, 0, 2, 2)])
def test_numbers_out_of_range_are_errors(arguments):
    with pytest.raises(ValueError, match="10 rows"):
        make_loader(Rows(10), *arguments)
    with pytest.raises(ValueError, match="0 rows"):
        make_loader(Rows(0), 4, 0)


@pytest.mark.parametrize("shares", [(0.9, 0.1), (3.0, 1.0), (1.0, 1.0, 1.0), (0.1, 0.2, 0.3, 0.4), (1e-3, 1.0)])
def test_turns_keep_every_share_and_count_each_part_from_its_start(shares):
    counts = [0] * len(shares)
    for place in range(3000):
        part, number = turn(place, shares)
        assert number == counts[part]
        counts[part] += 1
        for count, share in zip(counts, shares, strict=True):
            assert abs(count - (place + 1) * share / sum(shares)) < 2


def test_a_mixture_takes_its_parts_by_their_shares_and_begins_a_small_one_again():
    rows = Rows(100, first=97, shares=(0.75, 0.25))
    with closing(make_loader(rows, 4, 3)) as loader:
        drawn = [next(loader)["tokens"][:, 0].tolist() for _ in range(12)]
        state = loader.get_state()
        after = [next(loader)["tokens"][:, 0].tolist() for _ in range(5)]
    small = [[row for row in batch if row >= 97] for batch in drawn]
    assert all(len(batch) == 1 for batch in small)
    assert [sorted(itertools.chain(*small[start : start + 3])) for start in range(0, 12, 3)] == [[97, 98, 99]] * 4
    large = [row for batch in drawn for row in batch if row < 97]
    assert len(set(large)) == len(large) == 36
    with closing(make_loader(rows, 4, 3)) as loader:
        loader.set_state(state)
        assert [next(loader)["tokens"][:, 0].tolist() for _ in range(5)] == after
