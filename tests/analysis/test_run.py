"""The analysis as a user runs it: what it writes and says, and what it refuses."""

import json

import numpy as np
import pytest
import transformers as hf

from lesa_jax.analysis.panels import text_panels
from lesa_jax.analysis.report import print_report
from lesa_jax.analysis.run import analyze
from lesa_jax.analysis.settings import AnalyzeSettings
from lesa_jax.analysis.verdict import verdict
from lesa_jax.base.errors import InputError
from lesa_jax.planning.plan import Plan
from lesa_jax.reports.palette import style
from tests.support.changed import changed_copy
from tests.support.comparisons import Walk, strict
from tests.support.growth import grow
from tests.support.pictures import png_size
from tests.support.tiny import tiny
from tests.support.tokenizers import tiny_tokenizer

TEXT = "the quick brown fox jumps over the lazy dog, and 12 others. " * 40


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model with a tokenizer, the same with silent layers, and a text."""
    folder = tmp_path_factory.mktemp("analysis")
    changed_copy(tiny("llama"), folder / "base")
    tiny_tokenizer().save_pretrained(folder / "base")
    grow(folder / "base", folder / "grown", "identity", gaps="1,4")
    (folder / "text.txt").write_text(TEXT)
    (folder / "one.txt").write_text("a")
    (folder / "short.txt").write_text(TEXT[:60])
    config = hf.LlamaConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=6, num_attention_heads=2, vocab_size=64
    )
    hf.LlamaForCausalLM(config).save_pretrained(folder / "narrow")
    return folder


@pytest.fixture(scope="module")
def grown(place):
    return analyze(settings_of(place))


def settings_of(place, **more):
    options = {"base": str(place / "base"), "tokens": "128"} | more
    return AnalyzeSettings(str(place / "grown"), place / "text.txt", place / "out", **options)


def test_the_files_say_what_was_found(place, grown):
    value = strict((place / "out" / "analysis.json").read_text())
    assert [layer["layer"] for layer in value["layers"]] == list(range(8))
    assert [layer["layer"] for layer in value["layers"] if layer["new"]] == [2, 6]
    assert value["layers"][3]["importance"] == grown.measured.importance[3]
    assert value["layers"][3]["angle"] == grown.measured.layers[3].angle
    assert value["layers"][7]["update_angle"] is None
    assert len(value["layers"][0]["skip_effect"]) == 8
    assert value["effective_depth"] == dict(grown.effective_depth)
    assert (value["tokens"], value["text"], value["model"]) == (128, "text.txt", "grown")
    walk = Walk((place / "out" / "report.html").read_text())
    assert walk.tags.count("figure") == 11
    assert (walk.tags.count("polyline"), walk.tags.count("table")) == (2 * 18 + 3 * 7, 3)
    for name in ("layers.png", "matrices.png"):
        assert min(png_size(place / "out" / name)) > 400
    assert Plan.from_json(strict((place / "out" / "plan.json").read_text())) == grown.recommended
    for sentence in verdict(grown):
        assert " ".join(sentence.split()) in " ".join(walk.text.split())


def test_silent_layers_are_seen_and_recommended_first(grown):
    assert grown.new == (2, 6)
    assert {*grown.ranking[:2]} == {2, 6} or grown.measured.importance.min() < 0
    assert grown.measured.importance[[2, 6]].tolist() == [0, 0]
    assert any("The 2 new layers turn the stream by 0 degrees" in sentence for sentence in verdict(grown))
    assert grown.recommended is not None
    gaps = grown.recommended.gaps
    assert len(gaps) == 4
    order = [layer for layer in np.argsort(grown.measured.importance, kind="stable") if layer < 7]
    assert gaps == tuple(sorted(order[:4]))


def test_base_stands_beside_a_grown_model(place, grown):
    """Silent layers leave the originals' measures as they were; the new ones are not used."""
    base = grown.base
    assert base is not None
    assert (base.model, base.count, base.new, grown.old) == ("base", 6, (), (0, 1, 3, 4, 5, 7))
    np.testing.assert_allclose(grown.measured.importance[[*grown.old]], base.measured.importance, atol=1e-6)
    assert sum(grown.ways) == pytest.approx(1, abs=1e-5)
    assert [grown.ways[layer] for layer in grown.new] == pytest.approx([0, 0], abs=1e-6)
    said = " ".join(verdict(grown))
    assert "A new layer adds 0 of the stream's length" in said
    assert "the new ones make 0.0% of the way" in said.replace("-0.0%", "0.0%")
    assert "their order of importance correlates by 1.00 with what it was" in said
    value = strict((place / "out" / "analysis.json").read_text())
    assert [layer["layer"] for layer in value["base"]["layers"]] == list(range(6))
    panel = text_panels(grown)[0]
    ours, theirs = (next(line for line in panel.lines if line.name == f"to the end{end}") for end in ("", ", base"))
    assert theirs.x == [0, 1, 3, 4, 5, 7]
    assert [ours.y[layer] for layer in theirs.x] == pytest.approx(list(theirs.y), abs=1e-5)
    assert (panel.marked, style(ours.position)[0]) == ((2, 6), style(theirs.position)[0])
    assert ours.position != theirs.position


def test_weights_and_blocks_are_in_the_json(place, grown):
    value = strict((place / "out" / "analysis.json").read_text())
    assert [kind["kind"] for kind in value["weights"]] == [kind.kind for kind in grown.weights]
    assert {len(kind["norm"]) for kind in value["weights"]} == {8}
    told = {kind.kind: kind.prediction for kind in grown.weights}
    assert [kind["prediction"]["error"] for kind in value["weights"]] == [own.error for own in told.values()]
    error = np.mean([own.error for own in told.values()])
    assert f"taught without layers 3, predicts them with {error:.2f} times" in " ".join(verdict(grown))
    assert [block["size"] for block in value["blocks"]] == list(range(1, 9))
    assert all(block["distance"] == min(block["distances"]) for block in value["blocks"])
    assert value["blocks"][0]["first"] in grown.new


def test_what_is_printed(grown, capsys):
    print_report(grown)
    printed = capsys.readouterr().out
    assert "2 new" in printed
    assert all(sentence in printed for sentence in verdict(grown))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text": None}, "--text: name a text"),
        ({"text": "one.txt"}, "fewer than two tokens"),
        ({"text": "no.txt"}, "--text .*no.txt: cannot be read"),
        ({"tokens": "10"}, "--tokens 10: at least 64"),
        ({"tokens": "many"}, "--tokens many"),
        ({"text": "short.txt"}, "--text: only .* tokens in rows of .*: give a longer text"),
        ({"base": "grown"}, "--base .*grown: base has no growth.json"),
        ({"base": "grown", "model": "grown"}, "--base .*grown: has 8 layers, but grown was grown from 6"),
        ({"base": "narrow", "model": "grown"}, "--base .*narrow: its hidden size is 16, that of grown is 32"),
        ({"base": "base", "model": "grown", "output": "base/in"}, "overlap; choose another output"),
        ({"output": "out"}, "is not empty; choose another folder or add --overwrite"),
        ({"output": "base"}, "overlap; choose another output"),
        ({"output": "one.txt"}, "is a file; choose a folder"),
        ({"model": "t5"}, "t5: is an encoder-decoder; analyze looks at decoders alone"),
    ],
)
def test_bad_options_end_in_one_line_and_write_nothing(place, grown, options, message):
    changed_copy(tiny("t5"), place / "t5") if not (place / "t5").exists() else None
    given = {"model": "base", "text": "text.txt", "output": "new", "tokens": "128"} | options
    paths = {name: place / given[name] if given.get(name) else None for name in ("text", "output")}
    base = str(place / given["base"]) if "base" in given else None
    before = sorted(place.rglob("*"))
    with pytest.raises(InputError, match=message) as caught:
        analyze(AnalyzeSettings(model=str(place / given["model"]), tokens=given["tokens"], base=base, **paths))
    assert "\n" not in str(caught.value)
    assert sorted(place.rglob("*")) == before


def test_an_earlier_analysis_is_replaced_on_request(place, grown):
    again = analyze(settings_of(place, base=None, overwrite=True))
    assert again.base is None
    assert json.loads((place / "out" / "analysis.json").read_text())["seconds"] == round(again.seconds, 3)
    assert again.measured.layers == grown.measured.layers
