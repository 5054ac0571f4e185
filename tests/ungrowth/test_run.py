"""What growth added can be taken away again: the source comes back to the byte, or the model that fewer layers make."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from lesa_jax.base.errors import InputError
from lesa_jax.planning.record import read_growth
from lesa_jax.ungrow import main
from lesa_jax.ungrowth.run import ungrow
from lesa_jax.ungrowth.settings import UngrowSettings
from tests.support.growth import grow
from tests.support.tiny import CONFIGS, save, tiny

FACTS = {"growth.json", "README.md", ".lesa_jax.json"}  # of the folder, not of the model


def take_out(grown: Path, output: Path, **options):
    return ungrow(UngrowSettings(str(grown), output, **options))


def model_of(folder: Path) -> dict[str, bytes]:
    """All files but those that say how the folder was made."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in FACTS}


QUICK = {"gemma3", "qwen2", "deepseek_v3", "t5"}  # windows that alternate, counts of first layers, experts, two stacks
FAMILIES = [family if family in QUICK else pytest.param(family, marks=pytest.mark.slow) for family in sorted(CONFIGS)]


@pytest.mark.parametrize("family", FAMILIES)
def test_fewer_layers_are_the_model_of_fewer_gaps_and_none_are_the_source(tmp_path, family):
    grow(tiny(family), tmp_path / "three", "duplicate", gaps="0,2,2")  # 0 +0 1 2 +2 +2 3 ..
    grow(tiny(family), tmp_path / "two", "duplicate", gaps="2,2")
    report = take_out(tmp_path / "three", tmp_path / "less", layers="1")
    assert {cut.dropped[0] for cut in report.cuts} == {1}
    assert model_of(tmp_path / "less") == model_of(tmp_path / "two")
    for grown in ("three", "less"):
        report = take_out(tmp_path / grown, tmp_path / f"{grown}-source")
        assert report.originals.startswith("the source's")
        assert report.plan.is_original
        assert model_of(tmp_path / f"{grown}-source") == model_of(tiny(family))
        assert not (tmp_path / f"{grown}-source" / "growth.json").exists()


@pytest.mark.parametrize(
    ("family", "method"),
    [
        ("gemma2", "identity_next"),
        pytest.param("llama", "average", marks=pytest.mark.slow),
    ],
)
def test_layers_that_stay_are_what_their_method_made_them(tmp_path, family, method):
    """`identity_next` has the kinds of the layers above."""
    loud = {"output_scale": 1.0} if method == "identity_next" else {}  # no forward pass to see that it is silent
    grow(tiny(family), tmp_path / "two", method, gaps="0,3", **loud)
    grow(tiny(family), tmp_path / "one", method, gaps="3", **loud)
    take_out(tmp_path / "two", tmp_path / "less", layers="1")
    assert model_of(tmp_path / "less") == model_of(tmp_path / "one")


def test_a_second_copy_of_the_model_goes_layer_by_layer_too(tmp_path):
    grow(tiny("gemma2"), tmp_path / "solar", "solar", layers=9)  # 0-4 +2 +3 +4 5
    assert take_out(tmp_path / "solar", tmp_path / "even", layers="5").notes == ()  # 5 stays at an odd place
    [note] = take_out(tmp_path / "solar", tmp_path / "less", layers="5,7").notes
    assert note.startswith("its kinds of layers repeat after 2, and old layers have lost their places")
    assert f"Note: {note}" in (tmp_path / "less" / "README.md").read_text()
    assert str(read_growth(tmp_path / "less", 7).plan) == "0-4 +3 5"
    config = json.loads((tmp_path / "less" / "config.json").read_text())
    types = json.loads((tiny("gemma2") / "config.json").read_text())["layer_types"]
    assert config["layer_types"] == [types[layer] for layer in (0, 1, 2, 3, 4, 3, 5)]
    take_out(tmp_path / "less", tmp_path / "source")
    assert model_of(tmp_path / "source") == model_of(tiny("gemma2"))


def test_files_come_back_as_the_source_had_them(tmp_path):
    """Shards of a size of their own, the tokenizer, and what else lies there."""
    source = save(tmp_path / "source", "llama", max_shard_size="60KB")
    (source / "additional_chat_templates").mkdir()
    texts = {"tokenizer.json": "{}", "LICENSE": "free", "additional_chat_templates/tool.jinja": "{{ x }}"}
    for name, text in texts.items():
        (source / name).write_text(text)
    entries = json.loads((source / "config.json").read_text()) | {"note": "größer"}
    (source / "config.json").write_text(json.dumps(entries))
    grow(source, tmp_path / "grown", "duplicate")
    report = take_out(tmp_path / "grown", tmp_path / "out")
    assert "by their SHA-256" in report.originals
    shards = [path.name for path in source.glob("*.safetensors")]
    assert len(shards) > 2
    for name in (*shards, *texts):
        assert (tmp_path / "out" / name).read_bytes() == (source / name).read_bytes()
    index, config = (
        [json.loads((folder / name).read_text()) for folder in (source, tmp_path / "out")]
        for name in ("model.safetensors.index.json", "config.json")
    )
    assert index[0]["weight_map"] == index[1]["weight_map"]
    assert list(config[0].items()) == list(config[1].items())  # in their order
    assert report.nbytes == sum((source / name).stat().st_size for name in shards)


def test_one_stack_may_go_and_the_other_stay(tmp_path):
    grow(tiny("t5"), tmp_path / "both", "duplicate", gaps="1")
    grow(tiny("t5"), tmp_path / "encoder", "duplicate", gaps="1", stack="encoder")
    [cut] = take_out(tmp_path / "both", tmp_path / "out", stack="decoder").cuts
    assert (cut.name, cut.before, cut.after, cut.dropped) == ("decoder ", 6, 5, (2,))
    assert model_of(tmp_path / "out") == model_of(tmp_path / "encoder")
    take_out(tmp_path / "out", tmp_path / "source", layers="2")  # only the encoder has new ones
    assert model_of(tmp_path / "source") == model_of(tiny("t5"))


def test_growth_json_and_the_card_speak_of_what_is_left(tmp_path):
    grow(tiny("llama"), tmp_path / "grown", "duplicate", gaps="0,2,4")  # 0 +0 1 2 +2 3 4 +4 5
    before = read_growth(tmp_path / "grown", 9)
    for name in "ab":
        report = take_out(tmp_path / "grown", tmp_path / name, layers="4,1")
    assert (tmp_path / "a" / "growth.json").read_bytes() == (tmp_path / "b" / "growth.json").read_bytes()
    growth = read_growth(tmp_path / "a", 7)
    assert growth.plan == report.plan
    assert growth.plan.new_layers == (5,)
    assert (growth.method, growth.settings, growth.source) == (before.method, before.settings, before.source)
    expected = {"before": report.parameters[1] - (report.parameters[0] - report.parameters[1]) // 2}
    expected["after"] = report.parameters[1]
    assert growth.measurements["parameters"] == expected
    assert growth.measurements["dropped"] == [{"layers": [1, 4]}]
    assert growth.measurements["at_growth"]["kinds"] == {}
    card = (tmp_path / "a" / "README.md").read_text()
    assert "# 9 layers cut to 7" in card
    assert "its new layers 1, 4 (counted from 0) were taken out" in card
    assert "Layers 5 are still new" in card


def test_originals_that_were_changed_are_not_called_the_sources(tmp_path):
    grow(tiny("llama"), tmp_path / "grown", "duplicate", gaps="1")
    file = tmp_path / "grown" / "model.safetensors"
    tensors = load_file(file)
    tensors["model.norm.weight"] = tensors["model.norm.weight"] * np.float32(2)
    save_file(tensors, file, {"format": "pt"})
    report = take_out(tmp_path / "grown", tmp_path / "out")
    assert "that they are the source's is not shown" in report.originals
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert set(written) == set(load_file(tiny("llama") / "model.safetensors"))
    np.testing.assert_array_equal(written["model.norm.weight"], tensors["model.norm.weight"])


def change_growth(folder: Path, change) -> None:
    growth = json.loads((folder / "growth.json").read_text())
    change(growth)
    (folder / "growth.json").write_text(json.dumps(growth))


@pytest.mark.parametrize(
    "tensors",
    [None, {}, {"../../evil.safetensors": 57}, {"a.safetensors": 56, ".b.safetensors": 1}, {"model.safetensors": 9}],
)
def test_where_the_sources_files_are_not_known_they_are_laid_out_anew(tmp_path, tensors):
    grow(tiny("llama"), tmp_path / "grown", "duplicate", gaps="1")
    change_growth(tmp_path / "grown", lambda growth: growth["source"].update(tensors=tensors))
    assert take_out(tmp_path / "grown", tmp_path / "out").originals == "the grown model's, byte for byte"
    assert model_of(tmp_path / "out") == model_of(tiny("llama"))


BAD = {
    "an original": ({"layers": "1"}, "--layers 1: layer 1 is an original, which stays; new are 2, 5, 8"),
    "no such layer": ({"layers": "2,9"}, "--layers 2,9: no layer 9; the model has 0-8"),
    "no number": ({"layers": "top"}, "--layers top: 'top' is neither a number nor a range"),
    "a stack": ({"stack": "encoder"}, "--stack encoder: the model has only one stack of layers"),
    "two choices": ({"layers": "2", "idle": Path("a.json")}, "--idle finds the layers by itself: leave out --layers"),
    "a limit of nothing": ({"below": 0.1}, "--below belongs to --idle"),
    "no limit": ({"below": float("nan")}, "--below nan: must be a finite number"),
    "no analysis": ({"idle": Path("none.json")}, "--idle none.json: cannot be read"),
    "no model": ({"model": None}, "--model: name the grown model"),
}


@pytest.fixture(scope="module")
def grown(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ungrowth") / "grown"
    grow(tiny("llama"), folder, "duplicate")  # new are 2, 5, 8
    return folder


@pytest.mark.parametrize("case", BAD)
def test_bad_options_end_in_one_line_and_write_nothing(tmp_path, grown, case):
    options, message = BAD[case]
    with pytest.raises(InputError, match=message) as caught:
        ungrow(UngrowSettings(**({"model": str(grown), "output": tmp_path / "out"} | options)))
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_what_was_not_grown_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"growth.json: not found; only checkpoints grown by lesa_jax"):
        take_out(tiny("llama"), tmp_path / "out")


DAMAGES = {
    "of an earlier version": (lambda s: s.pop("config"), "does not say what growth changed in config.json"),
    "no object": (lambda s: s.update(config=[]), r"damaged \(config in its source has no entries"),
    "no list": (lambda s: s["config"].update(absent=[1]), r"damaged \(config in its source has no entries"),
    "another depth": (lambda s: s["config"]["entries"].update(num_hidden_layers=7), "another number of layers than"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_growth_json_that_does_not_tell_the_source_is_refused(tmp_path, damage):
    change, message = DAMAGES[damage]
    grow(tiny("llama"), tmp_path / "grown", "duplicate", gaps="1")
    change_growth(tmp_path / "grown", lambda growth: change(growth["source"]))
    with pytest.raises(InputError, match=message) as caught:
        take_out(tmp_path / "grown", tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["grown"]


def test_a_method_that_nobody_knows_can_go_as_a_whole_only(tmp_path):
    grow(tiny("llama"), tmp_path / "grown", "duplicate", gaps="1,2")
    change_growth(tmp_path / "grown", lambda growth: growth.update(method="mine"))
    with pytest.raises(InputError, match="made by --method mine, which is not registered here"):
        take_out(tmp_path / "grown", tmp_path / "out", layers="2")
    take_out(tmp_path / "grown", tmp_path / "out")
    assert model_of(tmp_path / "out") == model_of(tiny("llama"))


def test_an_output_in_the_way_stays_unless_it_is_an_earlier_one(tmp_path, grown):
    for output, message in ((grown, "overlap"), (grown / "inside", "overlap")):
        with pytest.raises(InputError, match=message):
            take_out(grown, output)
    take_out(grown, tmp_path / "out", layers="2")
    with pytest.raises(InputError, match="is not empty; choose another folder or add --overwrite"):
        take_out(grown, tmp_path / "out")
    take_out(grown, tmp_path / "out", overwrite=True)
    assert not (tmp_path / "out" / "growth.json").exists()


def test_numbers_that_are_none_are_named_and_nothing_is_written(tmp_path):
    grow(tiny("llama"), tmp_path / "grown", "duplicate", gaps="1")
    file = tmp_path / "grown" / "model.safetensors"
    tensors = load_file(file)
    tensors["model.layers.3.mlp.up_proj.weight"][1, 2] = float("nan")
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(InputError, match=r"model.layers.2.mlp.up_proj.weight: not finite"):
        take_out(tmp_path / "grown", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["grown"]


def test_the_command_copies_without_jax_and_says_what_it_did(tmp_path, grown, capsys, monkeypatch):
    words = ["ungrow", "--model", str(grown), "--output", str(tmp_path / "out")]
    code = f"""
import sys
sys.argv = {words}
from lesa_jax.ungrow import main
assert main() == 0
assert not {{"jax", "torch", "transformers"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for line in ("gone      2, 5, 8", "plan      the original's: no layer is new", "originals the source's:"):
        assert line in done.stdout
    monkeypatch.setattr(sys, "argv", [*words, "--layers", "3"])
    assert main() == 2
    assert capsys.readouterr().err.count("\n") == 1
