"""Checkpoints as they were published: names without the base model's, masks beside weights, entries of old versions."""

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import transformers as hf
from safetensors.numpy import load_file, save_file

from lesa_jax.base.errors import InputError
from lesa_jax.evaluation.run import EvaluateSettings, evaluate
from lesa_jax.models.config import read_config
from lesa_jax.models.decoder import logits
from lesa_jax.models.load import load_model
from lesa_jax.training.run import train
from lesa_jax.training.settings import TrainSettings
from tests.support.changed import changed_copy
from tests.support.growth import TOKENS, grow
from tests.support.settings import nest
from tests.support.tiny import CONFIGS, RUNNING, tiny, torch_logits
from tests.support.tokenizers import tiny_tokenizer


def entries(family: str, **changes: Any) -> dict[str, Any]:
    """The family's config.json as transformers 5 writes it, with other entries."""
    return CONFIGS[family]().to_dict() | changes


def as_published(folder: Path, family: str, prefix: str, masks: tuple[str, ...]) -> Path:
    """Without the base model's prefix, and with causal masks as buffers."""
    changed_copy(tiny(family), folder)
    weights = {name.removeprefix(prefix): array for name, array in load_file(folder / "model.safetensors").items()}
    for layer in range(6):
        weights |= {mask.format(layer): np.tril(np.ones((1, 1, 8, 8), np.float32)) for mask in masks}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


PUBLISHED = {
    "gpt2": ("transformer.", ("h.{}.attn.bias",)),
    "gpt_neox": ("", ("gpt_neox.layers.{}.attention.bias", "gpt_neox.layers.{}.attention.rotary_emb.inv_freq")),
    "opt": ("model.", ()),
}


@pytest.mark.parametrize("family", PUBLISHED)
def test_names_and_masks_of_published_checkpoints_are_understood(tmp_path, family):
    folder = as_published(tmp_path / "model", family, *PUBLISHED[family])
    expected = torch_logits(tiny(family), TOKENS).numpy()
    params, config = load_model(folder)
    np.testing.assert_allclose(logits(params, jnp.asarray(TOKENS), config), expected, atol=1e-4)
    report = grow(folder, tmp_path / "out", "llama_pro")
    assert report.function.startswith("checked: on ")
    np.testing.assert_array_equal(torch_logits(tmp_path / "out", TOKENS), expected)


@pytest.mark.slow
def test_a_published_gpt2_is_evaluated_and_trained(tmp_path):
    folder = as_published(tmp_path / "model", "gpt2", *PUBLISHED["gpt2"])
    tiny_tokenizer().save_pretrained(folder)
    grow(folder, tmp_path / "grown", "llama_pro")
    text = tmp_path / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog. " * 60)
    options = {"steps": 2, "batch_size": 4, "sequence_length": 32, "learning_rate": 1e-2}
    train(nest(TrainSettings, model=str(tmp_path / "grown"), data=str(text), output=tmp_path / "run", **options))
    measured = [
        evaluate(EvaluateSettings(str(place), text=text))["nll"]
        for place in (folder, tmp_path / "grown", tmp_path / "run" / "final")
    ]
    assert measured[0] == measured[1] > measured[2]
    _, info = hf.AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "final", output_loading_info=True)
    assert not info["missing_keys"]


REFUSED = {
    "gemma2": ({"use_bidirectional_attention": True}, "use_bidirectional_attention"),
    "falcon": ({"new_decoder_architecture": True, "parallel_attn": False}, "do not go together"),
    "olmo3": ({"rope_parameters": None, "rope_theta": 10000.0}, "rope_theta"),
    "gemma3": ({"rope_parameters": None, "rope_scaling": {"type": "linear", "factor": 8.0}}, "rope_type"),
    "phi3": ({"rope_parameters": {"rope_type": "linear", "factor": 2.0}}, "not defined for phi3"),
    "llama": ({"rms_norm_eps": 1e-60}, "rms_norm_eps"),
}


@pytest.mark.parametrize("family", REFUSED)
def test_what_versions_of_transformers_read_differently_or_not_at_all_is_refused(family):
    changes, named = REFUSED[family]
    with pytest.raises(InputError, match=named) as caught:
        read_config(entries(family, **changes))
    assert "\n" not in str(caught.value)


OLD: dict[str, tuple[str, tuple[str, ...], dict[str, Any]]] = {
    "pythia": ("gpt_neox", ("rope_parameters",), {"rotary_pct": 0.5, "rotary_emb_base": 500.0}),
    "gemma-3": ("gemma3", ("rope_parameters",), {"rope_theta": 5e5, "rope_local_base_freq": 5e3}),
    "llama-2": ("llama", ("rope_parameters", "head_dim"), {"rope_scaling": None, "pretraining_tp": 1}),
}


@pytest.mark.parametrize("name", OLD)
def test_entries_of_older_versions_mean_what_they_mean_to_transformers(tmp_path, name):
    family, without, changes = OLD[name]
    folder = changed_copy(tiny(family), tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k not in without} | changes))
    tokens = np.random.default_rng(0).integers(3, 64, (1, 48))
    params, ours = load_model(folder)
    expected = torch_logits(folder, tokens.tolist()).numpy()
    np.testing.assert_allclose(logits(params, jnp.asarray(tokens), ours), expected, atol=1e-4)
    plain, described = load_model(tiny(family))
    if name != "llama-2":
        assert np.abs(np.asarray(logits(plain, jnp.asarray(tokens), described)) - expected).max() > 1e-3


DAMAGE = (None, "x", -1, 0, float("inf"), float("nan"), [], {}, True, 10**30)


def refusal(config: dict[str, Any]) -> str:
    """What is wrong with it; nothing if it can be read."""
    try:
        read_config(config)
    except InputError as error:
        return str(error)
    return ""


FIRST = ("llama", "gemma3", "falcon", "gpt2", "deepseek_v3", "t5", "bart")  # of seconds each


@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=[] if name in FIRST else [pytest.mark.slow]) for name in RUNNING]
)
def test_a_damaged_entry_ends_in_one_line_at_worst(family):
    whole = entries(family)
    refused = [refusal(whole | {key: value}) for key in whole for value in DAMAGE]
    assert not any("\n" in text for text in refused)
    assert len([text for text in refused if text]) > 30
