"""Layers that run several times: against checkpoints in which they stand several times, and what is refused."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lesa_jax import demo
from lesa_jax.base.errors import InputError
from lesa_jax.base.files import write_json
from lesa_jax.checkpoint.reader import open_checkpoint
from lesa_jax.evaluation.looping import in_order, loop_order
from lesa_jax.evaluation.run import evaluate_text, show
from lesa_jax.evaluation.settings import EvaluateSettings
from lesa_jax.models.config import read_config, read_model
from lesa_jax.models.decoder import final_norm, logits
from lesa_jax.models.load import load_model
from lesa_jax.models.losses import logits_of as logits_of_states
from lesa_jax.models.streams import alike, embedded, read_head, read_layer, run_layer
from lesa_jax.models.views import view_of
from lesa_jax.planning.placement import repeat_layers
from tests.support.growth import TOKENS, grow
from tests.support.tiny import RUNNING, tiny

QUICK = ("gpt2", "llama")  # with names of its own, and with a rotation


def logits_of(params, config):
    with jax.default_matmul_precision("highest"):
        return np.asarray(logits(params, jnp.asarray(TOKENS), config))


def looped_logits(folder, loop):
    params, config = load_model(folder)
    return logits_of(*in_order(params, config, loop_order(loop, config)))


@pytest.mark.parametrize(
    "family", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in RUNNING if name not in QUICK)]
)
def test_looping_is_a_model_in_which_the_layers_stand_twice(family, tmp_path):
    """Each layer with the window, the rotation and the experts that it has in its own place."""
    write_json(tmp_path / "plan.json", repeat_layers(6, [0, 1, 2, 3, 2, 3, 4, 5]).to_json())
    grow(tiny(family), tmp_path / "grown", "duplicate", plan=tmp_path / "plan.json")
    expected = logits_of(*load_model(tmp_path / "grown"))
    found = looped_logits(tiny(family), "2-3x2")
    np.testing.assert_array_equal(found, expected)
    assert np.abs(found - logits_of(*load_model(tiny(family)))).max() > 1e-3


@pytest.mark.parametrize("loop", ["0-5x2", *(pytest.param(more, marks=pytest.mark.slow) for more in ("1-2x3", "0x2"))])
def test_dense_layers_may_come_back_behind_sparse_ones(loop):
    """Which no checkpoint can say (its config.json counts the dense layers at the beginning): layer by layer."""
    checkpoint = open_checkpoint(tiny("deepseek_v3"))
    config = read_model(checkpoint)
    assert config.sparse == (False, False, True, True, True, True)
    x, context = embedded(checkpoint, config, np.array(TOKENS))
    with jax.default_matmul_precision("highest"):
        for layer in loop_order(loop, config):
            tree, seen = read_layer(checkpoint, config, layer), view_of(config, layer)
            x = run_layer(tree, x, context, seen, alike(config, layer))
        outside, head = read_head(checkpoint, config)
        expected = logits_of_states(final_norm(outside, x, config), head)
    np.testing.assert_allclose(looped_logits(tiny("deepseek_v3"), loop), expected, atol=1e-5)


def test_the_order_that_layers_run_in():
    _, config = load_model(tiny("llama"))
    assert loop_order("2-3x3", config) == (0, 1, 2, 3, 2, 3, 2, 3, 4, 5)
    assert loop_order("5x2", config) == (0, 1, 2, 3, 4, 5, 5)
    assert loop_order("0-5x1", config) == tuple(range(6))


def test_once_is_the_model_itself():
    params, config = load_model(tiny("llama"))
    same, unchanged = in_order(params, config, loop_order("1-3x1", config))
    assert same is params
    assert unchanged is config


def test_a_silent_layer_may_run_as_often_as_it_likes(tmp_path):
    grow(tiny("llama"), tmp_path / "grown", "identity", gaps="1,4")
    whole = looped_logits(tmp_path / "grown", "2x1")
    np.testing.assert_array_equal(looped_logits(tmp_path / "grown", "2x3"), whole)
    assert np.abs(looped_logits(tmp_path / "grown", "3x3") - whole).max() > 1e-3


def test_what_evaluate_says_of_a_loop(capsys):
    text, settings = demo.evaluation_text()[:2000], EvaluateSettings(sequence_length=96, batch_size=4)
    whole, once, twice = (evaluate_text(text, replace(settings, loop=loop)) for loop in (None, "6-9x1", "6-9x2"))
    assert whole.keys() == once.keys() - {"loop", "layers"}
    assert (once["perplexity"], once["layers"]) == (whole["perplexity"], 16)
    assert (twice["loop"], twice["layers"], twice["tokens"]) == ("6-9x2", 20, whole["tokens"])
    assert twice["perplexity"] > 1.01 * whole["perplexity"]
    show(twice)
    assert json.loads(capsys.readouterr().out)["layers"] == 20


@pytest.mark.parametrize(
    ("loop", "message"),
    [
        ("6-16x2", "no layer 16; the model has layers 0 to 15"),
        ("16x2", "no layer 16"),
        ("9-6x2", "the lower layer comes first, as in --loop 6-9x2"),
        ("6-9x0", "run at least once"),
        ("6-9x99999", "more than 10,000 layers"),
        ("6-9", "as in --loop 8-11x2"),
        ("6-9x", "as in --loop 8-11x2"),
        ("", "as in --loop 8-11x2"),
        ("6-9x-1", "as in --loop 8-11x2"),
        ("-1-9x2", "as in --loop 8-11x2"),
        ("6-9x2.5", "as in --loop 8-11x2"),
        ("the middle, twice", "as in --loop 8-11x2"),
        ("6-9x99999999999999999999", "as in --loop 8-11x2"),
    ],
)
def test_loops_that_cannot_be_are_refused_in_one_line(loop, message):
    with pytest.raises(InputError, match=message) as caught:
        evaluate_text("a b c", EvaluateSettings(loop=loop))
    assert str(caught.value).startswith(f"--loop {loop}: ")
    assert "\n" not in str(caught.value)


def test_encoder_decoders_are_refused():
    config = read_config(json.loads((tiny("t5") / "config.json").read_text()))
    with pytest.raises(InputError, match="an encoder and a decoder"):
        loop_order("1-2x2", config)
