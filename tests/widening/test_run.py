"""What a widening writes, and what it refuses before it writes anything."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from safetensors.numpy import load_file, save_file

from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.reader import open_checkpoint
from lesa_jax.demo import MODEL_DIRECTORY
from lesa_jax.families.table import FAMILIES as KNOWN
from lesa_jax.widen import main
from lesa_jax.widening.job import FAMILIES
from lesa_jax.widening.run import widen
from tests.support.growth import grow
from tests.support.tiny import CONFIGS, LLAMA_LIKE, save, tiny

BAD_OPTIONS = {
    "once": ({"width": "1x"}, "--width 1x: expected a whole factor from 2x to 8x"),
    "nothing": ({"width": ""}, "--width : expected a whole factor"),
    "no whole factor": ({"width": "1.5x"}, "--width 1.5x: expected a whole factor"),
    "too wide": ({"width": "9x"}, "--width 9x: expected a whole factor"),
    "noise of lemon": ({"noise_db": 20.0}, "--noise-db belongs to --method hyperclone"),
    "no number": ({"method": "hyperclone", "noise_db": math.nan}, "--noise-db nan: must be a finite number"),
    "seed": ({"seed": -1}, "--seed -1: expected 0 to"),
    "missing folder": ({"model": "no/such/folder"}, "no such folder"),
}


def refused(tmp_path: Path, **options) -> str:
    """The message, one line, of what leaves nothing behind."""
    before = {path.name for path in tmp_path.iterdir()}
    with pytest.raises(InputError) as caught:
        widen(**{"model": str(tiny("llama")), "output": tmp_path / "out", **options})
    assert "\n" not in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} == before
    return str(caught.value)


@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_bad_options_end_in_one_line_and_write_nothing(tmp_path, case):
    options, message = BAD_OPTIONS[case]
    assert message in refused(tmp_path, **options)


@pytest.mark.parametrize("family", ["mistral", "gemma2", "gpt2", "openelm", "t5", "qwen2_moe"])
def test_other_families_are_refused_and_the_known_ones_named(tmp_path, family):
    message = refused(tmp_path, model=str(tiny(family)))
    assert message.startswith(f"config.json: {CONFIGS[family]().model_type} models cannot be made wider yet")
    assert "supported: gpt_neox, llama, qwen2, qwen3" in message
    assert set(FAMILIES) < set(KNOWN)


def changed(folder: Path, change, config=()) -> Path:
    """A llama with other tensors and other entries."""
    save(folder, "llama")
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    entries = json.loads((folder / "config.json").read_text()) | dict(config)
    (folder / "config.json").write_text(json.dumps(entries))
    return folder


def test_a_tensor_that_no_rule_is_known_for_is_named(tmp_path):
    source = changed(
        tmp_path / "source", lambda tensors: tensors.update({"model.extra.weight": np.ones(32, np.float32)})
    )
    assert "model.extra.weight has no place in a llama forward pass" in refused(tmp_path, model=str(source))


def test_numbers_that_are_none_are_named(tmp_path):
    def damage(tensors):
        tensors["model.layers.3.mlp.up_proj.weight"][1, 2] = np.nan

    source = changed(tmp_path / "source", damage)
    assert "model.layers.3.mlp.up_proj.weight" in refused(tmp_path, model=str(source))


def test_a_quantised_model_is_refused(tmp_path):
    source = changed(tmp_path / "source", lambda tensors: None, {"quantization_config": {"quant_method": "gptq"}})
    assert "the checkpoint is quantised (gptq)" in refused(tmp_path, model=str(source))


def test_an_output_in_the_way_of_the_model_is_refused(tmp_path):
    assert "overlap" in refused(tmp_path, output=tiny("llama"))


@pytest.mark.parametrize(("family", "width", "heads"), [("llama", "2x", (8, 4)), ("gpt_neox", "3", (12, None))])
def test_config_json_has_the_new_sizes_and_all_else(tmp_path, family, width, heads):
    source = json.loads((tiny(family) / "config.json").read_text())
    report = widen(model=str(tiny(family)), output=tmp_path / "out", width=width)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    factor = report.factor
    expected = {"hidden_size": 32 * factor, "intermediate_size": 48 * factor, "num_attention_heads": heads[0]}
    expected |= {"tie_word_embeddings": False} | ({} if heads[1] is None else {"num_key_value_heads": heads[1]})
    assert config == source | expected
    assert report.sizes["hidden_size"] == (32, 32 * factor)
    assert report.parameters[0] == sum(tensor.size for tensor in load_file(tiny(family) / "model.safetensors").values())
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert report.parameters[1] == sum(tensor.size for tensor in written.values())


def test_a_number_of_key_heads_that_config_json_leaves_open_is_written_out(tmp_path):
    """Qwen 2 without the entry has 32 of them, and would still have 32; with null as many as heads."""
    sizes: dict[str, Any] = LLAMA_LIKE | {"hidden_size": 64, "num_attention_heads": 32, "num_key_value_heads": 32}
    for name, open_ in (("absent", {}), ("null", {"num_key_value_heads": None})):
        source = tmp_path / name
        torch.manual_seed(0)
        hf.Qwen2ForCausalLM(hf.Qwen2Config(**sizes)).save_pretrained(source)
        entries = json.loads((source / "config.json").read_text())
        del entries["num_key_value_heads"]
        (source / "config.json").write_text(json.dumps(entries | open_))
        widen(model=str(source), output=tmp_path / f"{name}-wide")
        assert json.loads((tmp_path / f"{name}-wide" / "config.json").read_text())["num_key_value_heads"] == 64


def test_the_record_and_the_card_say_how_it_was_made(tmp_path):
    report = widen(model=str(tiny("llama_tied")), output=tmp_path / "out", method="hyperclone", seed=5)
    record = json.loads((tmp_path / "out" / "widening.json").read_text())
    assert record["format"] == 1
    assert (record["method"], record["factor"], record["untied"]) == ("hyperclone", 2, True)
    assert record["settings"] == {"width": "2x", "method": "hyperclone", "noise_db": None, "seed": 5}
    assert record["sizes"]["num_kv_heads"] == {"before": 2, "after": 4}
    assert record["parameters"] == {"before": report.parameters[0], "after": report.parameters[1]}
    assert record["source"]["model"] == tiny("llama_tied").name
    assert record["source"]["sha256"].keys() == {"model.safetensors"}
    assert [note.split(",")[0] for note in report.notes] == [
        "the head was the embedding",
        "copies are all alike and learn the same: what is new stays unused until something parts them",
    ]
    card = (tmp_path / "out" / "README.md").read_text()
    assert "# 2 times as wide" in card
    assert "hidden size 32 -> 64" in card
    assert "tags: [width-growth, lesa_jax]" in card
    for note in report.notes:
        assert f"Note: {note}." in card


@pytest.mark.parametrize("method", ["lemon", "hyperclone"])
def test_the_same_seed_gives_the_same_bytes(tmp_path, method):
    noise = {"noise_db": 10.0} if method == "hyperclone" else {}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        widen(model=str(tiny("qwen3")), output=tmp_path / name, method=method, seed=seed, **noise)
    a, b, c = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in "abc")
    assert a == b
    assert {name for name in a if a[name] != c[name]} == {"model.safetensors", "widening.json"}


def test_its_record_is_a_recipe(tmp_path, monkeypatch):
    options = ["--model", str(tiny("llama")), "--output"]
    monkeypatch.setattr(sys, "argv", ["w", *options, str(tmp_path / "a"), "--width", "3x", "--seed", "4"])
    assert main() == 0
    again = ["w", "--recipe", str(tmp_path / "a" / "widening.json"), *options, str(tmp_path / "b")]
    monkeypatch.setattr(sys, "argv", again)
    assert main() == 0
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (tmp_path / "b" / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("method", "width", "noise_db", "rounded"),
    [
        ("lemon", "3x", None, False),
        ("hyperclone", "2x", None, False),
        ("hyperclone", "3x", None, True),
        ("hyperclone", "2x", 20.0, True),
    ],
)
def test_dtypes_stay_and_rounding_is_told(tmp_path, method, width, noise_db, rounded):
    source = save(tmp_path / "source", "llama", torch.bfloat16)
    report = widen(model=str(source), output=tmp_path / "out", method=method, width=width, noise_db=noise_db)
    assert any("rounded in BF16" in note for note in report.notes) == rounded
    assert {entry.spec.dtype for entry in open_checkpoint(tmp_path / "out").entries.values()} == {"BF16"}


def test_constants_of_old_checkpoints_stay_as_they_are(tmp_path):
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    source = changed(tmp_path / "source", lambda tensors: tensors.update({name: np.arange(4, dtype=np.float32)}))
    widen(model=str(source), output=tmp_path / "out")
    np.testing.assert_array_equal(load_file(tmp_path / "out" / "model.safetensors")[name], np.arange(4))


def test_tokenizer_and_licence_go_along_and_growth_json_does_not(tmp_path):
    source = save(tmp_path / "source", "llama")
    (source / "LICENSE").write_text("free")
    grow(source, tmp_path / "grown", "duplicate")
    report = widen(model=str(tmp_path / "grown"), output=tmp_path / "out")
    assert (tmp_path / "out" / "LICENSE").read_text() == "free"
    assert not (tmp_path / "out" / "growth.json").exists()
    assert any("growth.json does not go along" in note for note in report.notes)


def test_the_command_needs_no_jax_and_says_what_it_did(tmp_path, capsys, monkeypatch):
    code = f"""
import sys
sys.argv = ["widen", "--output", {str(tmp_path / "out")!r}]
from lesa_jax.widen import main
assert main() == 0
assert not {{"jax", "torch", "transformers"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    entries = json.loads((MODEL_DIRECTORY / "config.json").read_text())
    row = next(line for line in done.stdout.splitlines() if "hidden size" in line)
    assert [word for word in row.split() if word.isdigit()] == [
        str(entries["hidden_size"]),
        str(2 * entries["hidden_size"]),
    ]
    assert "method    lemon" in done.stdout
    monkeypatch.setattr(sys, "argv", ["widen", "--width", "1x", "--output", str(tmp_path / "other")])
    assert main() == 2
    assert capsys.readouterr().err.count("\n") == 1
