"""Which layers go: those that are named, or those that an analysis of this very model says are not missed."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lesa_jax.base.errors import InputError
from lesa_jax.planning.placement import insert
from lesa_jax.ungrowth.choice import choose
from lesa_jax.ungrowth.settings import UngrowSettings

PLAN = insert(4, [0, 1, 1])  # 0 +0 1 +1 +1 2 3: new are 1, 3, 4
BOTH = replace(PLAN, encoder=insert(3, [1]))  # its encoder's is 2
IMPORTANCE = [-5.0, 0.0, -5.0, 0.2, -0.1, -5.0, -5.0]  # of originals, too, which stay whatever it says


def analysis(folder, change=lambda value: None):
    """What lesa analyze writes of a model with this plan, as far as it counts here."""
    layers = [
        {"layer": number, "new": slot.new, "importance": IMPORTANCE[number]} for number, slot in enumerate(PLAN.slots)
    ]
    value = {"format": 1, "model": "m", "layers": layers}
    change(value)
    (folder / "analysis.json").write_text(json.dumps(value))
    return folder / "analysis.json"


@pytest.mark.parametrize(
    ("options", "dropped"),
    [({}, (1, 3, 4)), ({"layers": "3-4"}, (3, 4)), ({"layers": "4, 1,4"}, (1, 4))],
)
def test_all_go_or_those_that_are_named(options, dropped):
    assert [tuple(layers) for layers in choose(UngrowSettings(**options), PLAN)] == [dropped]


@pytest.mark.parametrize(("below", "dropped"), [(0.0, [1, 4]), (-0.05, [4]), (0.2, [1, 3, 4]), (0.19, [1, 4])])
def test_idle_layers_are_new_ones_without_which_the_loss_gains_no_more_than_that(tmp_path, below, dropped):
    assert choose(UngrowSettings(idle=analysis(tmp_path), below=below), PLAN) == (dropped,)


@pytest.mark.parametrize(
    ("options", "dropped"),
    [
        ({}, ((2,), (1, 3, 4))),
        ({"stack": "encoder"}, ((2,), ())),
        ({"stack": "decoder"}, ((), (1, 3, 4))),
        ({"stack": "decoder", "layers": "3"}, ((), (3,))),
        ({"stack": "encoder", "layers": "2"}, ((2,), ())),
    ],
)
def test_layers_are_counted_in_each_stack_by_itself(options, dropped):
    assert tuple(map(tuple, choose(UngrowSettings(**options), BOTH))) == dropped


OTHER = {
    "no list": (
        lambda value: value.update(layers={"0": 1}),
        "has no list of layers; expected the analysis.json",
    ),
    "fewer layers": (lambda value: value["layers"].pop(), "is of a model of 6 layers, this one has 7"),
    "one more is new": (
        lambda value: value["layers"][2].update(new=True),
        "layer 2 is new there, but an original in",
    ),
    "one is not new": (
        lambda value: value["layers"][1].update(new=False),
        "layer 1 is an original there, but new in",
    ),
    "no number": (lambda value: value["layers"][3].pop("importance"), "layer 3 has no number as its importance"),
    "not finite": (lambda value: value["layers"][3].update(importance=float("nan")), "layer 3 has no number as its"),
    "a truth": (lambda value: value["layers"][3].update(importance=True), "layer 3 has no number as its importance"),
}


@pytest.mark.parametrize("case", OTHER)
def test_an_analysis_of_another_model_is_refused(tmp_path, case):
    change, message = OTHER[case]
    with pytest.raises(InputError, match=message) as caught:
        choose(UngrowSettings(idle=analysis(tmp_path, change)), PLAN)
    assert str(caught.value).startswith("--idle ")
    assert "\n" not in str(caught.value)


def test_when_every_new_layer_is_missed_the_least_is_named(tmp_path):
    with pytest.raises(InputError, match=r"missed more than --below -1, layer 4 least \(-0.1 nats a token\)"):
        choose(UngrowSettings(idle=analysis(tmp_path), below=-1.0), PLAN)


@pytest.mark.parametrize(
    ("options", "plan", "message"),
    [
        ({"layers": "9999"}, PLAN, "no layer 9999; the model has 0-6"),
        ({"layers": "4"}, BOTH, "no encoder layer 4; the model has 0-3"),
        ({"layers": "2"}, BOTH, "decoder layer 2 is an original, which stays; new are 1, 3, 4"),
        ({"stack": "decoder"}, PLAN, "only one stack of layers"),
        ({"stack": "encoder"}, replace(PLAN, encoder=insert(3, [])), "--stack encoder: none of its layers is new"),
        ({}, insert(3, []), "growth.json calls no layer new"),
        ({"layers": "1"}, insert(3, []), "growth.json calls no layer new"),
        ({"idle": Path("a.json")}, insert(3, []), "growth.json calls no layer new"),
        ({"idle": Path("a.json")}, BOTH, "--idle: lesa analyze looks at decoders alone"),
    ],
)
def test_what_cannot_go_is_named(options, plan, message):
    with pytest.raises(InputError, match=message):
        choose(UngrowSettings(**options), plan)
