"""How many singular directions LESA works in."""

SPARE = 32  # directions that are looked for besides those that are wanted


def kept_rank(shape: tuple[int, ...], rank: int | None = None) -> int:
    """How many directions there are of layers [layers, out, in] side by side, if no more than `rank` are wanted."""
    layers, out, fan_in = shape
    directions = min(out, layers * fan_in)
    return directions if rank is None else min(directions, rank)


def range_size(shape: tuple[int, ...], rank: int) -> int:
    """In how many directions so many are looked for."""
    return min(rank + SPARE, kept_rank(shape))
