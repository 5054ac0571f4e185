"""How many singular directions LESA works in."""

SPARE = 32  # directions that are looked for besides those that are wanted


def kept_rank(shape: tuple[int, ...], rank: int | None = None) -> int:
    """How many directions there are of layers [layers, out, in] side by side, if no more than `rank` are wanted."""
    layers, out, fan_in = shape
    directions = min(out, layers * fan_in)
    return directions if rank is None else min(directions, rank)


def searched(shape: tuple[int, ...], rank: int | None = None) -> int | None:
    """In how many directions those are looked for; None where all are kept, and none need be."""
    kept, directions = kept_rank(shape, rank), kept_rank(shape)
    return min(kept + SPARE, directions) if kept < directions else None
