"""What is trained, and that its weights are those of the checkpoint."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers as hf
from safetensors.numpy import save_file

from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.reader import open_checkpoint
from lesa_jax.models.config import read_config
from lesa_jax.models.decoder import logits
from lesa_jax.models.load import load_model
from lesa_jax.models.shapes import model_tensors
from lesa_jax.planning.placement import insert
from lesa_jax.training.parameters import choose, norm_scaled, random_weights
from tests.support.growth import TOKENS, grow
from tests.support.tiny import tiny
from tests.support.trees import PLANS, by_name, full_by_name, pieces


@pytest.mark.parametrize(
    ("train", "plan", "message"),
    [
        ("new", None, "no growth.json"),
        ("new+norms", None, "no growth.json"),
        ("layers.99", None, "matches no tensor; names look like"),
        ("(", None, "not a regular expression"),
    ],
)
def test_a_choice_that_means_nothing_is_refused(train, plan, message):
    with pytest.raises(InputError, match=message):
        choose(train, read_config(open_checkpoint(tiny("llama")).config), plan)


def test_new_and_norms():
    checkpoint = open_checkpoint(tiny("qwen2"))  # biases are no norms
    config = read_config(checkpoint.config)
    new = {name for name in checkpoint.entries if name.startswith(("model.layers.1.", "model.layers.3."))}
    assert choose("new", config, insert(4, [0, 1])) == new
    norms = {name for name in checkpoint.entries if "norm" in name}
    assert len(norms) == 2 * 6 + 1
    assert choose("new+norms", config, insert(4, [0, 1])) == new | norms


def test_weights_are_those_of_the_plain_loader():
    (trained, frozen), _, leaves, _, _ = pieces("llama", "new", PLANS["irregular"])
    params, config = load_model(tiny("llama"))
    loaded = by_name(trained, leaves) | by_name(frozen, leaves)
    plain = full_by_name(params, config)
    assert loaded.keys() == plain.keys()
    for name, value in loaded.items():
        np.testing.assert_array_equal(value, np.asarray(plain[name], np.float32))


def fresh(name: str, scaled: bool) -> dict[str, np.ndarray]:
    """All tensors of a fresh model of a tiny family, with LayerNorm Scaling or without."""
    config = read_config(open_checkpoint(tiny(name)).config)
    fill = random_weights(0, 0.2)
    fill = norm_scaled(fill, config) if scaled else fill
    return {
        name: fill(name, tensor, (slice(None),) * len(tensor.shape)) for name, tensor in model_tensors(config).items()
    }


@pytest.mark.parametrize("name", ["qwen3", "gemma2", "phi"])
def test_norm_scaling_is_one_over_the_root_of_the_layer_in_the_norms_that_read_the_stream(name):
    """Norms of queries and keys, of what is added, and the last one stay; so does all that is no norm."""
    config = read_config(open_checkpoint(tiny(name)).config)
    plain, scaled = fresh(name, scaled=False), fresh(name, scaled=True)
    shift = 1 if config.norm.shifted else 0
    changed = {tensor for tensor in plain if (plain[tensor] != scaled[tensor]).any()}
    reading = {f"{part}.weight" for part in (config.names.attention_norm, config.names.feed_forward_norm) if part}
    layers = range(1, config.num_layers)  # the first layer's factor is 1
    assert changed == {f"{config.names.layers}.{layer}.{part}" for layer in layers for part in reading}
    for part in reading:
        for layer, factor in ((0, 1.0), (1, 2**-0.5), (3, 0.5)):
            np.testing.assert_allclose(scaled[f"{config.names.layers}.{layer}.{part}"] + shift, factor, rtol=1e-6)


@pytest.mark.slow
def test_folded_factors_are_those_behind_the_norms_and_growth_keeps_them(tmp_path: Path):
    """The reference is transformers' model with ordinary norms, whose outputs are divided as the paper has it."""
    folder = tmp_path / "scaled"
    folder.mkdir()
    (folder / "config.json").write_bytes((tiny("llama") / "config.json").read_bytes())
    folded = fresh("llama", scaled=True)
    save_file(folded, folder / "model.safetensors", {"format": "pt"})
    plain = hf.LlamaForCausalLM(hf.LlamaConfig.from_pretrained(folder)).eval()
    plain.load_state_dict({name: torch.from_numpy(value) for name, value in fresh("llama", scaled=False).items()})
    for number, layer in enumerate(plain.model.layers, 1):
        for norm in (layer.input_layernorm, layer.post_attention_layernorm):
            norm.register_forward_hook(lambda _, __, out, number=number: out / number**0.5)
    with torch.no_grad():
        expected = plain(torch.tensor(TOKENS)).logits.numpy()

    def ours(model: Path) -> np.ndarray:
        params, config = load_model(model)
        return np.asarray(logits(params, jnp.asarray(TOKENS), config))

    np.testing.assert_allclose(ours(folder), expected, atol=2e-4)
    assert np.ptp(expected) > 1
    grow(folder, tmp_path / "grown", "llama_pro", gaps="0,2")
    np.testing.assert_array_equal(ours(tmp_path / "grown"), ours(folder))
