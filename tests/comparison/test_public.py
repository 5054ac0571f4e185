"""Where files lie is not told in tables; that they are called so is."""

from dataclasses import replace
from pathlib import Path

import pytest

from lesa_jax.base.settings import command_line
from lesa_jax.comparison.public import public, shown_settings
from lesa_jax.comparison.settings import ComparedTraining, CompareSettings

SETTINGS = CompareSettings(
    model="/home/me/models/base",
    text=Path("/home/me/eval.txt"),
    output=Path("/home/me/my out"),
    training=ComparedTraining(train_data="/data/x y.jsonl,here/b.jsonl"),
)


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("/home/me/my out/models/lesa-0: bad", "OUTPUT/models/lesa-0: bad"),
        ("/home/me/models/base/model.safetensors: bad", "base/model.safetensors: bad"),
        ("--model /home/me/models/base: bad", "--model base: bad"),
        ("/home/me/models/base2/x.y: bad", "x.y: bad"),
        ("/data/x y.jsonl:3: bad", "x y.jsonl:3: bad"),
        ("raised OSError: '/home/me/secret/x.npy', two\nlines", "raised OSError: 'x.npy', two lines"),
        ("~/z/k.bin, ../../q/r.txt or:/usr/x/y.py", "k.bin, r.txt or:y.py"),
        ("and/or a / b org/name https://a.b/c 1/2", "and/or a / b org/name https://a.b/c 1/2"),
        ("rows/lesa-0.json of here/b.jsonl", "rows/lesa-0.json of b.jsonl"),
    ],
)
def test_a_message(message, told):
    assert public(SETTINGS, message) == told


def test_a_bare_name_is_no_path_where_it_is_a_word():
    settings = CompareSettings(output=Path("comparison"), model="model")
    assert public(settings, "the comparison/rows/x of this comparison: a model") == (
        "the OUTPUT/rows/x of this comparison: a model"
    )


def test_replayed_data_is_told_by_its_name():
    replayed = replace(SETTINGS.training, replay_data="../secret/o.txt", replay="0.1")
    settings = replace(SETTINGS, training=replayed)
    assert public(settings, "../secret/o.txt:3: bad") == "o.txt:3: bad"
    assert command_line("compare", shown_settings(settings)).endswith("--replay-data o.txt --replay 0.1")


def test_a_command_names_what_lies_elsewhere_and_keeps_what_lies_below():
    assert command_line("compare", shown_settings(SETTINGS)) == (
        "compare --model base --text eval.txt --output 'my out' --train-data 'x y.jsonl,here/b.jsonl'"
    )
    hub = CompareSettings(model="org/name", training=ComparedTraining(train_data="hf://org/data:train"))
    assert command_line("compare", shown_settings(hub)) == "compare --model org/name --train-data hf://org/data:train"
