"""Placements that follow what layers matter on a text."""

from dataclasses import replace

import numpy as np
import pytest

from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.reader import open_checkpoint
from lesa_jax.evaluation import layers
from lesa_jax.evaluation.layers import block_influence, bypass_costs
from lesa_jax.evaluation.sample import sample_rows
from lesa_jax.growth.ranking import measured
from lesa_jax.growth.run import grow as grow_together
from lesa_jax.growth.settings import ExpandSettings
from lesa_jax.models.config import read_model
from lesa_jax.planning.placement import make_plan
from lesa_jax.planning.record import read_growth
from tests.support.changed import changed_copy
from tests.support.growth import grow
from tests.support.tiny import tiny
from tests.support.tokenizers import tiny_tokenizer

RANKING = (5, 0, 3, 1, 4, 2)


@pytest.fixture
def source(tmp_path):
    folder = changed_copy(tiny("llama"), tmp_path / "source")
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def text(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text("the quick brown fox jumps over the lazy dog, and 12 others. " * 40)
    return file


def test_new_layers_stand_above_those_that_matter_least():
    def gaps(method, layers, placement="importance"):
        return make_plan(6, method, layers, placement=placement, ranking=RANKING).gaps

    assert gaps("llama_pro", 9) == gaps("lesa", 9) == (0, 1, 3)  # none is above the last layer
    assert gaps("duplicate", 7, "influence") == (0,)
    assert gaps("llama_pro", 13) == (0, 0, 1, 2, 3, 3, 4)


@pytest.mark.parametrize("placement", ["importance", "influence"])
def test_the_order_is_that_of_what_was_measured(tmp_path, source, text, placement):
    rows = sample_rows(source, text.read_text(), read_model(open_checkpoint(source)))
    checkpoint = open_checkpoint(source)
    if placement == "importance":
        values = bypass_costs(checkpoint, read_model(checkpoint), rows, lambda done: None)
    else:
        values = block_influence(checkpoint, read_model(checkpoint), rows, lambda done: None)
    report = grow(source, tmp_path / "out", "llama_pro", layers=8, placement=placement, placement_text=text)
    assert report.plan.gaps == tuple(sorted(np.argsort(values[:-1])[:2]))
    settings = read_growth(tmp_path / "out", 8).settings
    assert (settings["placement"], settings["placement_text"]) == (placement, True)


def test_what_grows_together_is_measured_once(tmp_path, source, text, monkeypatch):
    measured.cache_clear()
    asked = []
    monkeypatch.setattr(layers, "bypass_costs", lambda *given: asked.append(given) or np.arange(6.0))
    one = ExpandSettings(str(source), tmp_path / "a", method="identity", placement="importance", placement_text=text)
    others = [replace(one, output=tmp_path / "b", method="duplicate"), replace(one, output=tmp_path / "c", layers=7)]
    plans = [outcome.plan.gaps for outcome in grow_together([one, *others])]
    assert plans == [(0, 1, 2), (0, 1, 2), (0,)]
    assert len(asked) == 1
    measured.cache_clear()


@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        ("llama", {"placement": "influence"}, "--placement influence: is measured on a text; name one with"),
        ("llama", {"placement": "top", "placement_text": "text"}, "--placement-text: is what --placement importance"),
        ("llama", {"placement": "influence", "placement_text": "one"}, "fewer than two tokens"),
        ("t5", {"placement": "importance", "placement_text": "text"}, "--placement importance: is for decoders alone"),
    ],
)
def test_what_cannot_be_measured_is_refused(tmp_path, text, family, options, message):
    folder = changed_copy(tiny(family), tmp_path / "source")
    tiny_tokenizer(sentinels=20 if family == "t5" else 0).save_pretrained(folder)
    (tmp_path / "one.txt").write_text("a")
    named = {"text": text, "one": tmp_path / "one.txt"}
    given = options | ({"placement_text": named[options["placement_text"]]} if "placement_text" in options else {})
    with pytest.raises(InputError, match=message):
        grow(folder, tmp_path / "out", "identity", **given)
    assert not (tmp_path / "out").exists()
