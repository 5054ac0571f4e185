"""Old text among the new: which data a row is trained on, by its share of replay."""

from decimal import Decimal

from lesa_jax.base.errors import InputError
from lesa_jax.comparison.settings import ComparedTraining
from lesa_jax.data.sources import split_shares


def training_data(training: ComparedTraining, replay: float) -> str:
    """What a row is trained on, as --data of lesa_jax.train takes it.

    Args:
      training: of the comparison; it has data to train on, and to replay if anything is replayed.
      replay: share of the rows that are from --replay-data, 0 <= replay < 1.

    Raises:
      InputError: a list of files, which cannot have a share.
    """
    assert training.train_data is not None
    if not replay:
        return training.train_data
    assert training.replay_data is not None
    new, old = parts("--train-data", training.train_data), parts("--replay-data", training.replay_data)
    # Products and sums only, so that shares are what they were written as, to the last digit.
    share = Decimal(str(replay))
    new_weight, old_weight = (1 - share) * total(old), share * total(new)
    weighted = [(name, part * weight) for many, weight in ((new, new_weight), (old, old_weight)) for name, part in many]
    return ",".join(f"{name}:{weight:f}" for name, weight in weighted)


def parts(option: str, data: str) -> list[tuple[str, Decimal]]:
    """The parts that an option names, each with its share among them."""
    found = split_shares(data)
    for name, _ in found:
        if "," in name:
            raise InputError(
                f"{option} {name}: a list of files cannot be mixed with another; name a folder or a glob, or give each "
                "file a share, as in a.txt:0.5,b.txt:0.5"
            )
    return [(name, Decimal(str(share))) for name, share in found]


def total(found: list[tuple[str, Decimal]]) -> Decimal:
    return sum((share for _, share in found), Decimal(0))
