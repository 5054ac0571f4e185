"""Patterns of layers, and what becomes of them when a model grows."""

import json

import numpy as np
import pytest

from lesa_jax.base.errors import InputError
from lesa_jax.families.periods import layer_kinds, layer_period, traps
from lesa_jax.planning.placement import make_plan
from tests.support.growth import TOKENS, grow
from tests.support.tiny import tiny, torch_logits

PERIODS = {"llama": 1, "mistral": 1, "gemma2": 2, "gemma3": 3, "cohere2": 2, "olmo3": 4, "smollm3": 4, "qwen2": 6}


def config_of(folder):
    return json.loads((folder / "config.json").read_text())


@pytest.mark.parametrize("name", PERIODS)
def test_a_period_is_after_how_many_layers_the_kinds_repeat(name):
    assert layer_period(config_of(tiny(name))) == PERIODS[name]


def test_of_a_model_that_does_not_run_the_list_of_kinds_says_it():
    kinds = ["sliding_attention", "sliding_attention", "full_attention"] * 4
    assert layer_period({"model_type": "unheard_of", "layer_types": kinds}) == 3
    assert layer_period({"model_type": "unheard_of"}) == 1


def test_whole_periods_stand_above_those_that_they_are_made_of():
    plan = make_plan(7, "llama_pro", layers=11, placement="periods", period=2)
    new, old = True, False
    assert [(slot.layer, slot.new) for slot in plan.slots] == [
        *((0, old), (1, old), (0, new), (1, new)),
        *((2, old), (3, old)),
        *((4, old), (5, old), (4, new), (5, new)),
        (6, old),
    ]
    assert all(position % 2 == layer % 2 for layer, position in enumerate(plan.old_layers))


def test_what_is_predicted_has_a_neighbour_above(tmp_path):
    plan = make_plan(6, "lesa", layers=14, placement="periods", period=2)
    assert plan.gaps == (0, 1, 0, 1, 2, 3, 2, 3)
    assert grow(tiny("gemma2"), tmp_path / "out", "lesa", layers=14, placement="periods").plan == plan


@pytest.mark.parametrize(("layers", "period"), [(7, 2), (8, 3)])
def test_a_count_that_is_no_multiple_is_refused_with_the_nearest_that_is(layers, period):
    with pytest.raises(InputError, match=r"nearest is --layers \d+") as caught:
        make_plan(6, "duplicate", layers=layers, placement="periods", period=period)
    nearest = int(str(caught.value).split()[-1])
    assert make_plan(6, "duplicate", layers=nearest, placement="periods", period=period).layers == nearest


@pytest.mark.parametrize(("method", "period"), [("duplicate", 7), ("lesa", 6), ("lesa", 4)])
def test_a_model_without_a_period_to_repeat_is_told(method, period):
    with pytest.raises(InputError, match="no whole period to repeat"):
        make_plan(6, method, layers=12, placement="periods", period=period)


def test_what_goes_by_a_layers_number_is_told_of():
    gemma = {"model_type": "gemma2", "layer_types": ["sliding_attention", "full_attention"] * 23}
    even, whole = (make_plan(46, "llama_pro", layers=48, placement=p, period=2) for p in ("even", "periods"))
    words = ("27 billion", "kinds of layers repeat after 2")
    assert [word in " ".join(traps(gemma, even.old_layers, 48)) for word in words] == [True, True]
    assert [word in " ".join(traps(gemma, whole.old_layers, 48)) for word in words] == [True, False]
    assert traps({"model_type": "llama"}, even.old_layers, 48) == ()


def test_a_t5_whose_decoder_becomes_deeper_than_its_encoder_has_no_cache_in_transformers(tmp_path):
    trap = "generate with use_cache=False, or let the encoder grow, too"
    for stack, told in (("decoder", True), ("encoder", False)):
        report = grow(tiny("t5"), tmp_path / stack, "llama_pro", gaps="1,2", stack=stack)
        assert any(trap in note for note in report.notes) == told


@pytest.mark.parametrize("family", ["gemma3", "cohere2"])
def test_grown_in_whole_periods_a_model_keeps_its_pattern_and_its_function(tmp_path, family):
    kinds, period = layer_kinds(config_of(tiny(family))), PERIODS[family]
    report = grow(tiny(family), tmp_path / "periods", "llama_pro", layers=6 + 2 * period, placement="periods")
    grown = layer_kinds(config_of(tmp_path / "periods"))
    assert grown == tuple(kinds[layer % period] for layer in range(len(grown)))
    assert report.notes == ()
    np.testing.assert_array_equal(torch_logits(tmp_path / "periods", TOKENS), torch_logits(tiny(family), TOKENS))
    shifted = grow(tiny(family), tmp_path / "even", "llama_pro", layers=8)
    assert any("--placement periods" in note for note in shifted.notes)
