"""A user's plan is read in each of its forms; one that is damaged, or that nothing can fill, ends in one line."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesa_jax.base.errors import InputError
from lesa_jax.planning.methods import METHODS, find_method
from lesa_jax.planning.placement import insert, make_plan
from lesa_jax.planning.plan_file import parse, read_plan

PLAN = insert(6, [1, 3, 3])


def read(folder, value, depths=(6,), method="duplicate"):
    file = folder / "plan.json"
    file.write_text(value if isinstance(value, str) else json.dumps(value))
    return read_plan(file, depths, find_method(method))


@pytest.mark.parametrize("method", [name for name in METHODS if not METHODS[name].stacking])
def test_what_a_method_makes_it_takes_from_a_file(tmp_path, method):
    for placement in ("top", "even", "ends"):
        plan = make_plan(6, method, 13, placement=placement)
        assert read(tmp_path, plan.to_json(), method=method) == plan


@pytest.mark.parametrize("method", [name for name in METHODS if METHODS[name].stacking])
def test_whole_plans_are_for_methods_that_copy_the_layer_below(tmp_path, method):
    plan = make_plan(6, method, 9)
    for copying in ("duplicate", "llama_pro", "identity"):
        assert read(tmp_path, plan.to_json(), method=copying) == plan
    with pytest.raises(InputError, match=f"--method {method} repeats the model as a whole and has no --plan"):
        read(tmp_path, plan.to_json(), method=method)
    if plan.below != plan.gaps:
        for other in ("lesa", "average", "identity_next"):
            with pytest.raises(InputError, match=f"as --method {other} needs"):
                read(tmp_path, plan.to_json(), method=other)


def test_a_growth_json_and_gaps_are_plans(tmp_path):
    for value in (PLAN.to_json(), {"format": 1, "plan": PLAN.to_json()}, {"gaps": [3, 1, 3]}):
        assert read(tmp_path, value) == PLAN
    assert read(tmp_path, {"source_layers": 6, "gaps": [1, 3, 3]}, method="lesa") == PLAN


def test_slices_are_a_plan_in_json_and_yaml_and_in_mergekits_words(tmp_path):
    solar = make_plan(6, "solar", 8)
    slices = {"slices": [{"layers": [0, 4]}, {"layers": [2, 6]}]}
    mergekit = """
    slices:
      - sources: [{model: mistralai/Mistral-7B-v0.1, layer_range: [0, 4]}]
      - sources: [{model: mistralai/Mistral-7B-v0.1, layer_range: [2, 6]}]
    merge_method: passthrough
    """
    assert read(tmp_path, slices) == read(tmp_path, mergekit) == solar
    repeats = "slices: [{layers: [0, 2]}, {layers: [1, 2]}, {layers: [1, 6]}, {layers: [0, 1]}]"
    assert str(read(tmp_path, repeats)) == "0-1 +1 +1 2-5 +0"


def test_each_stack_has_a_plan_of_its_own_in_either_form(tmp_path):
    both = replace(PLAN, encoder=insert(4, [2]))
    assert read(tmp_path, both.to_json(), (4, 6)) == both
    assert read(tmp_path, PLAN.to_json() | {"encoder": {"gaps": [2]}}, (4, 6)) == both
    kept = {"gaps": [1, 3, 3], "encoder": {"gaps": []}}
    assert read(tmp_path, kept, (4, 6)) == replace(PLAN, encoder=insert(4, []))
    # LESA needs three layers to learn from, of a stack that grows.
    assert read(tmp_path, {"gaps": [1, 3, 3], "encoder": {"gaps": []}}, (2, 6), "lesa").layers == 9


KEYS = st.sampled_from(["slots", "gaps", "slices", "layers", "source_layers", "encoder", "layer", "new"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(JSON, st.sampled_from([(3,), (3, 3)]))
def test_whatever_is_no_plan_is_said_so(value, depths):
    try:
        plan = parse(value, depths, "--plan p.json")
    except (InputError, ValueError):
        return
    assert parse(plan.to_json(), depths, "--plan p.json") == plan


def changed(position, **slot):
    plan = PLAN.to_json()
    plan["slots"][position] = slot
    return plan


BELOW = {"source_layers": 2, "slots": [{"layer": 0, "new": True}, {"layer": 0}, {"layer": 1}]}
ABOVE = {"source_layers": 2, "slots": [{"layer": 0}, {"layer": 1}, {"layer": 1, "new": True}]}
BAD = {
    "no JSON": ("{", {}, r"plan.json: cannot be read as JSON"),
    "no object": ([3, 5], {}, "expected an object of names and values, found list"),
    "no plan": ({"layers": 9}, {}, r"its plan has no source_layers or no slots; expected .*growth.json"),
    "plan of another kind": ({"plan": [1]}, {}, "its plan is no object; expected"),
    "gaps in words": ({"gaps": "3-5"}, {}, "its gaps are no list of numbers; expected"),
    "a truth among gaps": ({"gaps": [True]}, {}, "are no list of numbers"),
    "a depth without end": ({"gaps": [1], "source_layers": 10**12}, {}, "its source_layers is no number of layers"),
    "unknown gap": ({"gaps": [5]}, {}, r"plan.json: no gap 5; a model of 6 layers has 0-4; the nearest is 4$"),
    "gaps of another model": ({"gaps": [7], "source_layers": 9}, {}, "is of 9 layers, the model has 6; take a plan"),
    "another depth": (PLAN.to_json(), {"depths": (8,)}, "is of 6 layers, the model has 8"),
    "another encoder": (PLAN.to_json() | {"encoder": {"gaps": [0], "source_layers": 3}}, {"depths": (4, 6)},
                        "is of 3 encoder layers, the model has 4"),
    "an original missing": (changed(0, layer=0, new=True), {}, "the originals of a plan must be 0..5 in order"),
    "a slot out of range": (changed(2, layer=9, new=True), {}, "slot 2 of its plan is no layer of 0-5"),
    "slots without end": (PLAN.to_json() | {"source_layers": 10**12}, {}, "the originals of a plan must be 0.."),
    "no slices": ({"slices": 3}, {}, "its slices are no list; expected"),
    "a slice of nothing": ({"slices": [{"layers": [2, 2]}]}, {}, r"slice 0 is \[2, 2\]; the model has layers 0 to 5"),
    "a slice too long": ({"slices": [{"layers": [0, 4]}, {"layers": [2, 7]}]}, {}, r"slice 1 is \[2, 7\]"),
    "a slice in words": ({"slices": [{"layers": "0-4"}]}, {}, "slice 0 has no two numbers"),
    "slices of two models": ({"slices": [{"sources": [{}, {}]}]}, {}, "slice 0 mixes 2 models"),
    "slices that end early": ({"slices": [{"layers": [0, 4]}, {"layers": [2, 4]}]}, {}, "no layer 4 after those"),
    "slices in another order": ({"slices": [{"layers": [3, 6]}, {"layers": [0, 6]}]}, {}, "slot 0 is a new layer"),
    "slices without end": ({"slices": [{"layers": [0, 6]}] * 40_000}, {}, "its slices have 240000 layers"),
    "nothing new": ({"gaps": []}, {}, "has no new layer, so there is nothing to grow"),
    "nothing new, slot by slot": (insert(6, []).to_json(), {}, "has no new layer"),
    "an encoder too many": (PLAN.to_json() | {"encoder": PLAN.to_json()}, {}, "the model is a decoder alone"),
    "an encoder too few": (PLAN.to_json(), {"depths": (6, 6)}, r'the model has an encoder.*\{"gaps": \[\]\} keeps it'),
    "too few layers": ({"gaps": [0]}, {"depths": (2,), "method": "lesa"}, "needs at least 3 layers"),
    "below its original": (BELOW, {"depths": (2,)}, "slot 0 is a new layer above original 0, but lies below it"),
    "above the last": (ABOVE, {"depths": (2,), "method": "average"}, "slot 2 does not lie between original 1"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_grown_ends_in_one_line(tmp_path, case):
    value, options, message = BAD[case]
    with pytest.raises(InputError, match=message) as caught:
        read(tmp_path, value, **options)
    assert str(caught.value).startswith("--")
    assert str(caught.value).count("plan.json") <= 1
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_said_in_one_line(tmp_path):
    with pytest.raises(InputError, match=r"--plan .*none.json: cannot be read as UTF-8 text"):
        read_plan(tmp_path / "none.json", (6,), METHODS["lesa"])
