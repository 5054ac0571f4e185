"""Endless batches of rows in a random order that is known from the seed, read ahead by threads (grain).

The order and every global batch depend on the seed and the global batch size alone, so a run that is continued on
another number of processes sees the same data.
"""

import itertools
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import grain
import numpy as np

from lesa_jax.base.errors import InputError
from lesa_jax.data.mixture import turn

THREADS = 2
READ_AHEAD = 4  # batches


class Loader:
    """An iterator over this process's batches: `next(loader)` is a dict of arrays [batch_size, T]; it never ends."""

    def __init__(self, batches: grain.MapDataset, identity: Mapping[str, int | str]):
        self.identity = identity
        options = grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=READ_AHEAD)
        self.iterator = iter(batches.to_iter_dataset(options))

    def __iter__(self) -> "Loader":
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        return next(self.iterator)

    def get_state(self) -> dict[str, Any]:
        """Where the next batch is, for JSON; the same in every process."""
        return {**self.identity, "batches": self.iterator.get_state()["next_index"]}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continues where `get_state` was called.

        Raises InputError if the state is of other data, another seed or another global batch size: the batches to come
        would not be those of the run that it belongs to.
        """
        for name, here in self.identity.items():
            if state.get(name) != here:
                there = state.get(name)
                raise InputError(
                    f"the checkpoint's place in the data has {name} {there!s:.12}, this run has {here!s:.12}; "
                    "continue with the data, sequence length, seed and batch size that it was begun with"
                )
        self.iterator.set_state({"next_index": state["batches"]})

    def close(self) -> None:
        """Ends the threads."""
        self.iterator.close()


def stacked(rows: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Rows of the same shapes as one batch."""
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def make_loader(
    rows: Any,
    batch_size: int,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
) -> Loader:
    """Batches of rows in a new order each epoch; an epoch ends anywhere in a batch.

    The global batch is `batch_size * process_count` rows, and process p has the p-th block of `batch_size` of them, so
    the blocks one after the other are the same array whatever the number of processes.

    Args:
      rows: has a length, a digest of its content, bounds and shares of its parts and, by index, rows: dicts of arrays
        of the same shapes (`mixture.Mixture`).
      batch_size: rows per process.
      seed: at least 0.
      process_index: this process's number.
      process_count: how many processes there are.

    Raises ValueError if there are no rows, or numbers are out of their ranges.
    """
    if len(rows) < 1 or batch_size < 1 or seed < 0 or not 0 <= process_index < process_count:
        raise ValueError(
            f"{len(rows)} rows, batch size {batch_size}, seed {seed}, process {process_index} of {process_count}"
        )
    global_batch = batch_size * process_count
    mine = slice(process_index * batch_size, (process_index + 1) * batch_size)

    def read(indices: np.ndarray) -> dict[str, np.ndarray]:
        return stacked([rows[int(index)] for index in indices[mine]])

    # Epoch e is shuffled with seed + e, so neighbouring seeds would repeat each other's epochs.
    spread = np.random.SeedSequence(seed).generate_state(len(rows.shares))
    parts = [
        grain.MapDataset.range(start, stop).shuffle(int(seed)).repeat()
        for (start, stop), seed in zip(itertools.pairwise(rows.bounds), spread, strict=True)
    ]

    def take(place: int) -> Any:
        part, number = turn(place, rows.shares)
        return parts[part][number]

    order = grain.MapDataset.range(sys.maxsize).map(take)
    # Indices are batched, then read: each process reads its own rows only.
    batches = order.batch(global_batch).map(read)
    return Loader(batches, {"data": rows.digest, "rows": len(rows), "seed": seed, "global_batch": global_batch})
