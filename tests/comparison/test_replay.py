"""Old text among the new: exact shares of it, and a comparison whose rows replay none or some."""

import json
from collections import Counter
from fractions import Fraction

import pytest

from lesa_jax.base.errors import InputError
from lesa_jax.comparison.replay import training_data
from lesa_jax.comparison.run import compare
from lesa_jax.comparison.settings import ComparedTraining
from lesa_jax.data.mixture import turn
from lesa_jax.data.sources import split_shares
from tests.support.comparing import settings, training


def shares(new: str, old: str, replay: float) -> dict[str, Fraction]:
    """Of all rows, counted over a round of them, by the part's name."""
    parts = split_shares(training_data(ComparedTraining(train_data=new, replay_data=old, replay="0.5"), replay))
    given, whole = [share for _, share in parts], 1000
    counted = Counter(parts[turn(place, given)[0]][0] for place in range(whole))
    return {name: Fraction(count, whole) for name, count in counted.items()}


@pytest.mark.parametrize(
    ("new", "old", "replay", "expected"),
    [
        ("a", "b", 0.1, {"a": 0.9, "b": 0.1}),
        ("a", "b", 0.7, {"a": 0.3, "b": 0.7}),  # 1 - 0.7 is no 0.3 in binary
        ("a:3,b:1", "c", 0.2, {"a": 0.6, "b": 0.2, "c": 0.2}),
        ("a", "b:0.2,c:0.6", 0.4, {"a": 0.6, "b": 0.1, "c": 0.3}),
        ("hf://org/x:train", "texts/*.txt", 0.001, {"hf://org/x:train": 0.999, "texts/*.txt": 0.001}),
    ],
)
def test_every_part_has_exactly_its_share(new, old, replay, expected):
    assert shares(new, old, replay) == {name: Fraction(str(share)) for name, share in expected.items()}


def test_without_replay_the_data_is_what_was_named():
    assert training_data(ComparedTraining(train_data="a.txt,b.txt"), 0.0) == "a.txt,b.txt"


@pytest.mark.parametrize(("new", "old", "named"), [("a,b", "c", "--train-data a,b"), ("a", "b,c", "--replay-data b,c")])
def test_a_list_of_files_has_no_share(new, old, named):
    with pytest.raises(InputError, match=f"{named}: a list of files cannot be mixed .* as in a.txt:0.5,b.txt:0.5"):
        training_data(ComparedTraining(train_data=new, replay_data=old, replay="0.1"), 0.1)


@pytest.mark.slow
def test_rows_replay_none_or_some_of_the_old_text(place):
    known = "What the model knew before it learned of other things. "
    (place / "old.txt").write_text(known * 400)
    (place / "known.txt").write_text(known * 20)
    more = {"replay": "0,0.25", "replay_data": str(place / "old.txt"), "retain_text": place / "known.txt"}
    short = {"learning_rate": 1e-3, "train_tokens": "1K", "batch_size": 8, "controls": False}
    job = settings(place, "replay", methods="llama_pro", **training(place) | more | short)
    compare(job)
    table = {row["name"]: row for row in json.loads((job.output / "table.json").read_text())}
    assert {name: row["replay"] for name, row in table.items()} == {
        "base": 0.0, "base, 25 % replay": 0.25, "llama_pro": 0.0, "llama_pro, 25 % replay": 0.25,
    }  # fmt: skip
    assert {row["error"] for row in table.values()} == {None}
    assert table["base, 25 % replay"]["retained"] < table["base"]["retained"]
    runs = {path.name: json.loads((path / "run.json").read_text()) for path in (job.output / "runs").iterdir()}
    assert {name for name, run in runs.items() if "old.txt" in run["settings"]["data"]} == {
        "base-replay-0.25-0", "llama_pro-replay-0.25-0",
    }  # fmt: skip
    assert "0 % or 25 % of the rows replayed from old.txt" in (job.output / "table.md").read_text()
