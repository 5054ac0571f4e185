"""How loud new layers are: factors on what their halves add to the residual stream, in every family."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lesa_jax.checkpoint.reader import open_checkpoint, read
from lesa_jax.evaluation.factors import scale_outputs
from lesa_jax.families.loudness import Loudness, loudness_of, output_norms
from lesa_jax.families.table import description
from lesa_jax.models.decoder import forward
from lesa_jax.models.load import load_model
from tests.support.growth import TOKENS, grow
from tests.support.tiny import RUNNING, tiny

LAYER = 3


@pytest.mark.slow
@pytest.mark.parametrize("family", RUNNING)
def test_a_layer_of_factor_0_is_not_there_and_small_factors_are_in_proportion(family):
    params, config = load_model(tiny(family))
    if config.experts is not None:  # whose choice may change at a hair
        config = replace(config, experts=config.experts.all_chosen())

    def stream(factor):
        factors = np.ones(config.num_layers, np.float32)
        factors[LAYER] = factor
        with jax.default_matmul_precision("highest"):
            return np.asarray(forward(scale_outputs(params, jnp.asarray(factors), config), jnp.array(TOKENS), config))

    silent, tenth, fifth, whole = map(stream, (0, 0.01, 0.02, 1))
    np.testing.assert_array_equal(whole, np.asarray(forward(params, jnp.array(TOKENS), config)))
    change, double = tenth - silent, fifth - silent
    assert np.linalg.norm(change) > 1e-4 * np.linalg.norm(silent)
    assert np.linalg.norm(double - 2 * change) < 0.1 * np.linalg.norm(double)


@pytest.mark.parametrize("family", ["llama", "olmo2", "gemma2"])
def test_the_written_factor_is_that_of_what_decides(tmp_path, family):
    """Behind a norm the size of a projection is lost: there it is the norm's weights, which in Gemma are 1 + w."""
    grow(tiny(family), tmp_path / "half", "duplicate", gaps="2", output_scale=0.5)
    old, new = open_checkpoint(tiny(family)), open_checkpoint(tmp_path / "half")
    model = description(old.config)
    assert set(output_norms(model)) == deciding_norms(family)
    for name in old.entries:
        if not name.startswith("model.layers.2."):
            continue
        before, after = read(old, name), read(new, name.replace(".2.", ".3.", 1))
        inside = name.removeprefix("model.layers.2.")
        if inside.removesuffix(".weight") in output_norms(model):
            np.testing.assert_allclose(after, 0.5 * (1 + before) - 1 if family == "gemma2" else 0.5 * before, atol=1e-7)
        elif family == "llama" and ("o_proj" in name or "down_proj" in name):
            np.testing.assert_array_equal(after, 0.5 * before)
        else:
            np.testing.assert_array_equal(after, before)


def deciding_norms(family):
    return {
        "llama": set(),
        "olmo2": {"post_attention_layernorm", "post_feedforward_layernorm"},
        "gemma2": {"post_attention_layernorm", "post_feedforward_layernorm"},
    }[family]


OTHERS = [pytest.param(family, marks=pytest.mark.slow) for family in ("gpt2", "mixtral", "granitemoe", "t5")]


@pytest.mark.parametrize("family", ["llama", "gemma2", *OTHERS])
def test_predicted_layers_are_as_loud_as_predictions_agree_with_old_ones(tmp_path, family):
    """All else is as published: every tensor of new layers, biases and experts among them."""
    loud = grow(tiny(family), tmp_path / "published", "lesa_published", gaps="1,2")
    report = grow(tiny(family), tmp_path / "shrunk", "lesa", gaps="1,2")
    assert {name: kind.loss for name, kind in report.kinds.items()} == {n: kind.loss for n, kind in loud.kinds.items()}
    published, shrunk = (open_checkpoint(tmp_path / name) for name in ("published", "shrunk"))
    model, new = description(published.config), report.plan.new_layers
    factors: dict[str, list[float]] = {}
    for name in published.entries:
        before, after = (read(one, name) for one in (published, shrunk))
        if layer_of(name) not in new or (loudness := loudness_of(inside_layer(name), model)) is None:
            np.testing.assert_array_equal(before, after)
            continue
        writer = ("encoder." if name.startswith("encoder.") else "") + loudness.writer
        for one, other in zip(before, after, strict=True) if before.ndim == 3 else [(before, after)]:  # by expert
            one = one + loudness.shift
            factor = np.sum((other + loudness.shift) * one) / np.sum(one * one)
            np.testing.assert_allclose(other + loudness.shift, factor * one, rtol=1e-4, atol=1e-6)
            factors.setdefault(writer, []).append(factor)
    assert len(factors) >= 2
    for writer, found in factors.items():
        assert np.mean(found) == pytest.approx(report.kinds[writer].agreement, rel=1e-3), writer
    assert any("as loud as predictions" in note for note in report.notes)
    assert not any("as loud as predictions" in note for note in loud.notes)


def layer_of(name):
    """Its number; -1 outside the layers. Both stacks of an encoder-decoder have new layers in the same places."""
    return next((int(word) for word in name.split(".") if word.isdecimal()), -1)


def inside_layer(name):
    """A tensor's name behind the layer's number; other numbers are stars."""
    words = ["*" if word.isdecimal() else word for word in name.split(".")]
    return ".".join(words[words.index("*") + 1 :])


def test_an_unknown_familys_projections_decide_alone():
    assert loudness_of("self_attn.o_proj.weight", None) == loudness_of("self_attn.o_proj.bias", None)
    assert loudness_of("self_attn.o_proj.weight", None) == Loudness("self_attn.o_proj")
    assert loudness_of("post_attention_layernorm.weight", None) is None
    assert loudness_of("self_attn.q_proj.weight", None) is None
