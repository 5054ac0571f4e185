"""What all methods share, and several of them at once: the same bytes as alone, and a failure that stays its own."""

import json

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.reader import open_checkpoint, read
from lesa_jax.families.roles import writes_residual
from lesa_jax.growth.run import grow as grow_together
from lesa_jax.growth.settings import ExpandSettings
from lesa_jax.planning import methods
from tests.support.growth import QUICK, TOKENS, grow
from tests.support.tiny import tiny, torch_logits

OTHER = pytest.param("opt_deus_published", marks=pytest.mark.slow)
SILENT = ("llama_pro", "tli_zero", "lemon", "identity", "identity_next", "opt_deus", OTHER)


@pytest.mark.parametrize("method", SILENT)
def test_silent_methods_leave_the_logits_unchanged(tmp_path, method):
    grow(tiny("qwen2"), tmp_path / "out", method, layers=13)  # more than one layer in a gap
    torch.testing.assert_close(
        torch_logits(tmp_path / "out", TOKENS), torch_logits(tiny("qwen2"), TOKENS), atol=0, rtol=0
    )


@pytest.mark.parametrize(("family", "gap"), [("qwen2", 2), ("qwen3_moe", 0), ("gpt2", 1)])
def test_identity_next_is_the_layer_above_in_every_tensor_but_silent(tmp_path, family, gap):
    """qwen2's layers 2 and 3 differ in their attention window, qwen3_moe's 0 and 1 are dense and sparse."""
    grow(tiny(family), tmp_path / "out", "identity_next", gaps=str(gap))
    config, tensors = (
        json.loads((tmp_path / "out" / "config.json").read_text()),
        load_file(tmp_path / "out" / "model.safetensors"),
    )
    layers = [{}, {}]
    for name, tensor in tensors.items():
        parts = name.split(".")
        if {str(gap + 1), str(gap + 2)} & set(parts[:3]):
            number = next(i for i, part in enumerate(parts) if part.isdecimal())
            layers[int(parts[number]) - gap - 1][".".join(parts[number + 1 :])] = tensor
    new, above = layers
    assert new.keys() == above.keys()
    for name, tensor in above.items():
        assert torch.equal(new[name], torch.zeros_like(tensor) if writes_residual(name) else tensor), name
    if "layer_types" in config:
        assert config["layer_types"][gap + 1] == config["layer_types"][gap + 2]


def test_above_the_last_layer_a_copy_of_the_layer_above_is_one_of_the_last(tmp_path, registry):
    methods.register("next", methods.Method("", "", "even", methods.Copy("above"), after_last=True))
    grow(tiny("llama"), tmp_path / "out", "next", layers=12)
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    new, last = (tensors[f"model.layers.{position}.mlp.up_proj.weight"] for position in (11, 10))
    assert torch.equal(new, last)


@pytest.mark.parametrize("family", ["gpt2", "mixtral", "qwen3_moe"])
@pytest.mark.parametrize("method", ["average", "random"])
def test_computed_methods_on_other_architectures(tmp_path, family, method):
    report = grow(tiny(family), tmp_path / "out", method, layers=14)
    model, info = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert model.config.num_hidden_layers == report.plan.layers == 14


def test_average_is_the_mean_of_the_neighbours(tmp_path):
    grow(tiny("qwen2"), tmp_path / "out", "average", gaps="2")
    before, after = open_checkpoint(tiny("qwen2")), open_checkpoint(tmp_path / "out")
    for rest in ("mlp.up_proj.weight", "self_attn.q_proj.bias", "input_layernorm.weight"):
        expected = (read(before, f"model.layers.2.{rest}") + read(before, f"model.layers.3.{rest}")) / 2
        np.testing.assert_allclose(read(after, f"model.layers.3.{rest}"), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("method", ["lesa_published", "duplicate"])
def test_output_scale_multiplies_what_new_layers_write(tmp_path, method):
    grow(tiny("gpt2"), tmp_path / "one", method, gaps="2")
    grow(tiny("gpt2"), tmp_path / "half", method, gaps="2", output_scale=0.5)
    one, half = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "half"))
    for name, tensor in one.items():
        scaled = name.startswith("transformer.h.3.") and "c_proj" in name
        torch.testing.assert_close(half[name], 0.5 * tensor if scaled else tensor, atol=0, rtol=1e-6)
    assert (one["transformer.h.3.mlp.c_proj.weight"] != 0).any()


@pytest.mark.slow
def test_ways_grown_together_are_the_same_to_the_byte_as_alone(tmp_path):
    names = ("lesa", "lesa_published", "shuffled", "lesa_raw", "average", "llama_pro", "opt_deus", "solar")
    model = str(tiny("llama"))

    def way(name, folder):
        options = QUICK if isinstance(methods.METHODS[name].start, methods.Lesa) else {}
        return ExpandSettings(model, tmp_path / folder / name, method=name, **options)

    lost = ExpandSettings(model, tmp_path / "together" / "lost", method="lost")
    outcomes = grow_together([way("lesa", "together"), lost, *(way(name, "together") for name in names[1:])])
    assert isinstance(outcomes[1], InputError)
    for name in names:
        grow_together([way(name, "alone")])
        for file in sorted((tmp_path / "alone" / name).iterdir()):
            assert file.read_bytes() == (tmp_path / "together" / name / file.name).read_bytes(), file
    assert sorted(path.name for path in (tmp_path / "together").iterdir()) == sorted(names)


def test_a_way_that_fails_leaves_nothing_and_the_others_go_on(tmp_path, registry):
    def broken(weights, gaps, key):
        return weights[: len(gaps)] * np.nan

    methods.register("broken", methods.Method("", "", "top", broken))
    methods.register("misshapen", methods.Method("", "", "top", lambda weights, gaps, key: weights))
    names = ("broken", "misshapen", "average")
    ways = [ExpandSettings(str(tiny("llama")), tmp_path / name, method=name) for name in names]
    broke, misshapen, fine = grow_together(ways)
    assert "not finite" in str(broke)
    assert "method misshapen: its initialiser gave shape (6, " in str(misshapen)
    assert fine.plan.layers == 9
    assert [path.name for path in tmp_path.iterdir()] == ["average"]
