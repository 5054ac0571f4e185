"""A little of the training data that is not trained on, to see what has been learned."""

from dataclasses import replace

import numpy as np
from jaxtyping import Int

from lesa_jax.data.mixture import Mixture
from lesa_jax.data.packing import PackedRows

PART = 100  # one row of so many
MOST = 64  # rows


def hold_out(rows: Mixture) -> tuple[Mixture, list[Int[np.ndarray, " _"]]]:
    """The rows without the last hundredth of the first data, at most 64, and the documents of those.

    Of data of fewer than a hundred rows, and of any but plain documents, nothing is held out.
    """
    first, *others = rows.parts
    count = min(MOST, len(first) // PART)
    if count == 0 or not isinstance(first, PackedRows) or first.store.mask is not None:
        return rows, []
    kept, last = first.parted(count)
    pieces = [
        row["tokens"][row["segment_ids"] == number]
        for row in (last[index] for index in range(count))
        for number in range(1, int(row["segment_ids"].max()) + 1)
    ]
    return replace(rows, parts=(kept, *others)), [piece for piece in pieces if len(piece) > 1]
