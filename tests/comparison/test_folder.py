"""A comparison's folder is recognised by what compare.json has held since the first version."""

from pathlib import Path

import pytest

from lesa_jax.base.errors import InputError
from lesa_jax.base.files import read_json, write_json
from lesa_jax.comparison.folder import make_output, start
from lesa_jax.comparison.settings import ComparedTraining, CompareSettings
from tests.support.settings import change

SETTINGS = CompareSettings(
    model="m", text=Path("t.txt"), sequence_length=32, training=ComparedTraining(train_data="d", train_tokens="2K")
)
EARLIER = {
    "model": "m", "text": "t.txt", "layers": None, "revision": None, "train_data": "d", "train_tokens": "2K",
    "train": "new", "eval_every": "100k", "learning_rate": 0.0002, "batch_size": 16, "sequence_length": 32,
    "ppl_protocol": "corpus",
}  # fmt: skip


def test_a_comparison_begun_before_goes_on_with_other_methods_but_no_other_settings(tmp_path):
    settings = change(SETTINGS, output=tmp_path / "out", methods="lesa", seeds=9, placements="top", keep_models=True)
    make_output(settings.output)
    start(settings)
    assert read_json(settings.output / "compare.json", "") == EARLIER
    write_json(settings.output / "compare.json", EARLIER)
    make_output(settings.output)
    assert start(settings) == settings
    with pytest.raises(InputError, match="its comparison has --train-tokens 2K, now it is 3K"):
        start(change(settings, train_tokens="3K"))
