"""A wider model computes what the original computes, here and in transformers, and can be grown and trained on."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax.traverse_util import flatten_dict

from lesa_jax.models.config import read_config
from lesa_jax.models.decoder import logits
from lesa_jax.models.load import load_model
from lesa_jax.training.run import train
from lesa_jax.widening.run import widen
from tests.support.growth import TOKENS, grow
from tests.support.settings import train_settings
from tests.support.tiny import save, tiny, torch_logits

SLOW = pytest.mark.slow
FAMILIES = ("llama", "llama_tied", "qwen2", "qwen3", "gpt_neox")
# Every family by both methods and by both factors; the other halves in the second step.
WAYS = [pytest.param(family, "lemon", "2x") for family in FAMILIES]
WAYS += [pytest.param(family, "hyperclone", "3x") for family in FAMILIES]
WAYS += [
    pytest.param(family, *way, marks=SLOW) for family in FAMILIES for way in (("lemon", "3x"), ("hyperclone", "2x"))
]


def our_logits(folder: Path) -> np.ndarray:
    params, config = load_model(folder)
    return np.asarray(jax.jit(logits, static_argnums=(2, 3))(params, jnp.asarray(TOKENS), config, jnp.float32))


def check_preserved(source: Path, wide: Path) -> None:
    """By our forward pass and by transformers', each against transformers' of the original."""
    expected = torch_logits(source, TOKENS).numpy()
    assert np.abs(expected).max() > 0.3
    np.testing.assert_allclose(torch_logits(wide, TOKENS).numpy(), expected, atol=1e-5, rtol=0)
    np.testing.assert_allclose(our_logits(wide), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("family", "method", "width"), WAYS)
def test_logits_stay(tmp_path, family, method, width):
    widen(model=str(tiny(family)), output=tmp_path / "wide", method=method, width=width, seed=3)
    check_preserved(tiny(family), tmp_path / "wide")


@pytest.mark.parametrize("width", ["2x", pytest.param("5x", marks=SLOW)])
def test_with_noise_logits_stay_and_weights_do_not(tmp_path, width):
    for noise_db, name in ((None, "plain"), (6.0, "noisy")):
        widen(model=str(tiny("qwen2")), output=tmp_path / name, method="hyperclone", width=width, noise_db=noise_db)
    check_preserved(tiny("qwen2"), tmp_path / "noisy")
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("plain", "noisy")]
    assert files[0] != files[1]


@pytest.mark.parametrize(("method", "width"), [("lemon", "3x"), ("hyperclone", "2x")])
def test_in_half_precision_the_weights_still_sum_to_what_they_were(tmp_path, method, width):
    """Computed in float32, so that only the sharing can be seen."""
    source = save(tmp_path / "source", "gpt_neox", torch.bfloat16)
    report = widen(model=str(source), output=tmp_path / "wide", method=method, width=width)
    assert not any("rounded" in note for note in report.notes)
    check_preserved(source, tmp_path / "wide")


def test_a_model_that_was_saved_without_its_head_gets_one(tmp_path):
    """Tied, so that the head is the embedding; tensors are called `layers.0`, not `model.layers.0`."""
    import transformers as hf

    model = hf.AutoModelForCausalLM.from_pretrained(tiny("llama_tied"), dtype=torch.float32)
    model.model.save_pretrained(tmp_path / "bare")
    widen(model=str(tmp_path / "bare"), output=tmp_path / "wide")
    check_preserved(tiny("llama_tied"), tmp_path / "wide")


def test_heads_that_are_not_as_wide_as_the_stream_and_one_for_all_keys(tmp_path):
    import transformers as hf

    torch.manual_seed(0)
    config = hf.Qwen3Config(
        hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=3, num_key_value_heads=1,
        head_dim=16, vocab_size=64, max_position_embeddings=64, attention_bias=True,
    )  # fmt: skip
    hf.Qwen3ForCausalLM(config).save_pretrained(tmp_path / "source")
    widen(model=str(tmp_path / "source"), output=tmp_path / "wide", width="3x")
    check_preserved(tmp_path / "source", tmp_path / "wide")
    config = read_config(json.loads((tmp_path / "wide" / "config.json").read_text()))
    assert (config.hidden_size, config.num_heads, config.num_kv_heads, config.head_dim) == (72, 9, 3, 16)


def test_a_real_models_logits_stay(tmp_path, books16):
    """They are up to 16, where float32 rounds to 1e-6; two programs for the original differ by 1e-5 there."""
    widen(model=str(books16), output=tmp_path / "wide", width="3x")
    expected = our_logits(books16)
    assert np.abs(expected).max() > 5
    np.testing.assert_allclose(our_logits(tmp_path / "wide"), expected, atol=5e-5, rtol=0)


def test_depth_goes_on_top(tmp_path):
    widen(model=str(tiny("llama")), output=tmp_path / "wide")
    grow(tmp_path / "wide", tmp_path / "deep", "llama_pro", layers=9)
    expected = torch_logits(tmp_path / "wide", TOKENS).numpy()
    np.testing.assert_array_equal(torch_logits(tmp_path / "deep", TOKENS).numpy(), expected)
    check_preserved(tiny("llama"), tmp_path / "deep")
    assert (tmp_path / "deep" / "widening.json").read_bytes() == (tmp_path / "wide" / "widening.json").read_bytes()


def test_wide_models_become_wider(tmp_path):
    widen(model=str(tiny("gpt_neox")), output=tmp_path / "wide")
    widen(model=str(tmp_path / "wide"), output=tmp_path / "wider", method="hyperclone")
    check_preserved(tiny("gpt_neox"), tmp_path / "wider")
    record = json.loads((tmp_path / "wider" / "widening.json").read_text())
    assert record["sizes"]["hidden_size"] == {"before": 64, "after": 128}


def twins(family: str, folder: Path) -> dict[str, np.ndarray]:
    """For every tensor that makes units of which there are copies: by how much the gradients of two copies differ, as
    a share of the larger."""

    def loss(params):
        scores = jax.nn.log_softmax(logits(params, jnp.asarray(TOKENS), config, jnp.float32))
        return -jnp.mean(jnp.take_along_axis(scores[:, :-1], jnp.asarray(TOKENS)[:, 1:, None], axis=-1))

    params, config = load_model(folder)
    gradients: dict[str, Any] = flatten_dict(jax.jit(jax.grad(loss))(params), sep=".")
    narrow: dict[str, Any] = flatten_dict(load_model(tiny(family))[0], sep=".")
    found = {}
    for name in narrow.keys() - {f"{config.names.head}.weight"}:  # which only reads copies
        before = narrow[name]
        gradient = np.asarray(gradients[name])
        # What is made: rows [out, in] of a matrix, all of a vector, the channels of an embedding.
        axis = gradient.ndim - 1 if gradient.ndim == 2 else gradient.ndim - 2
        if gradient.shape[axis] == 2 * before.shape[axis]:
            first, second = np.split(gradient, 2, axis)
            found[name] = np.linalg.norm(first - second) / max(np.linalg.norm(first), np.linalg.norm(second))
    return found


@pytest.mark.parametrize("family", ["llama", pytest.param("gpt_neox", marks=SLOW), pytest.param("qwen3", marks=SLOW)])
def test_copies_learn_the_same_by_hyperclone_and_different_things_by_lemon(tmp_path, family):
    for method in ("hyperclone", "lemon"):
        widen(model=str(tiny(family)), output=tmp_path / method, method=method)
    equal, unequal = twins(family, tmp_path / "hyperclone"), twins(family, tmp_path / "lemon")
    assert len(equal) >= 8
    assert equal.keys() == unequal.keys()
    assert max(equal.values()) < 1e-5
    assert min(unequal.values()) > 1e-2


def test_all_of_it_trains(tmp_path, place):
    widen(model=str(place / "base"), output=place / "wide")
    settings = train_settings(place, "wide-run", model=str(place / "wide"), train="all", eval_text=None)
    train(replace(settings, output=tmp_path / "run"))
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if row["step"] > 0]
    assert losses[-1] < losses[0] - 0.1
    params, config = load_model(tmp_path / "run" / "final")
    assert config.hidden_size == 128
    assert params["lm_head"]["weight"].shape == (4096, 128)
