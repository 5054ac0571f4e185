"""What was trained, or looked at, since it was grown: what comes back then, and what is said of it."""

import dataclasses
import json

import pytest

from lesa_jax import AnalyzeSettings, UngrowSettings
from lesa_jax.analyze import analyze
from lesa_jax.checkpoint.reader import open_checkpoint, read_bytes
from lesa_jax.planning.record import Growth, not_as_grown, read_growth
from lesa_jax.train import train
from lesa_jax.ungrow import ungrow
from lesa_jax.ungrowth.record import originals_kept
from tests.support.settings import train_settings

NEW = {"train": "new", "steps": 6}
SIZES = {"before": 4, "after": 6}


@pytest.mark.parametrize(
    ("trained", "same", "words"),
    [
        ([], True, "by their SHA-256"),
        ([NEW], True, "by their SHA-256"),
        ([NEW], None, "the grown model's, byte for byte"),
        ([NEW], False, "that they are the source's is not shown"),
        ([NEW, {"train": "all"}, {"train": "lora:8"}, {"train": "all"}], False, "(--train all, --train lora:8)"),
        ([{"train": "all"}], None, "need not be the source's"),
    ],
)
def test_no_more_is_said_of_originals_than_is_known(place, trained, same, words):
    growth = read_growth(place / "grown", 6)
    measurements = dict(growth.measurements) | ({"trained": trained} if trained else {})
    assert words in originals_kept(dataclasses.replace(growth, measurements=measurements), same)


def test_what_became_of_a_model_is_kept_through_every_change():
    at_growth = {"perplexity": {"before": 1.0, "after": 2.0}, "kinds": {}}
    once = not_as_grown({"parameters": SIZES, **at_growth})
    assert once == {"parameters": SIZES, "at_growth": at_growth}
    later = once | {"trained": [NEW], "dropped": [{"layers": [1]}]}
    assert not_as_grown(later) == later


@pytest.mark.slow
@pytest.mark.parametrize("scope", ["new", "all"])
def test_trained_originals_come_back_as_they_are_and_the_rest_trains_on(place, tmp_path, scope):
    train(train_settings(place, f"run-{scope}", train=scope, steps=2))
    final = place / f"run-{scope}" / "final"
    report = ungrow(UngrowSettings(str(final), tmp_path / "out"))
    assert report.originals.startswith("the source's" if scope == "new" else "as trained")
    source, out, trained = (open_checkpoint(folder) for folder in (place / "base", tmp_path / "out", final))
    assert out.entries.keys() == source.entries.keys()
    assert out.config == source.config
    plan = read_growth(final, 6).plan
    for name, entry in out.entries.items():
        head, _, tail = name.partition("layers.")
        layer, _, rest = tail.partition(".")
        there = f"{head}layers.{plan.old_layers[int(layer)]}.{rest}" if tail else name
        assert read_bytes(out, entry) == read_bytes(trained, trained.entries[there])
    same = [read_bytes(out, entry) == read_bytes(source, source.entries[name]) for name, entry in out.entries.items()]
    assert all(same) == (scope == "new")
    # One of two new layers goes, and the other is trained on.
    ungrow(UngrowSettings(str(final), tmp_path / "less", layers="2"))
    settings = train_settings(place, f"again-{scope}", model=str(tmp_path / "less"), steps=2)
    train(settings)
    growth: Growth = read_growth(place / f"again-{scope}" / "final", 5)
    assert growth.plan.new_layers == (3,)
    assert [entry["train"] for entry in growth.measurements["trained"]] == [scope, "new"]
    assert growth.measurements["dropped"] == [{"layers": [2]}]


@pytest.mark.slow
def test_an_analysis_says_which_layers_go(place, tmp_path):
    analyze(AnalyzeSettings(str(place / "grown"), place / "eval.txt", tmp_path / "analysis", tokens="256"))
    file = tmp_path / "analysis" / "analysis.json"
    importance = {layer["layer"]: layer["importance"] for layer in json.loads(file.read_text())["layers"]}
    assert importance[2] != importance[4]
    least = min((2, 4), key=importance.__getitem__)
    settings = UngrowSettings(str(place / "grown"), tmp_path / "out", idle=file, below=importance[least])
    [cut] = ungrow(settings).cuts
    assert cut.dropped == [least]
