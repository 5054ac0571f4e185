"""growth.json comes back as it was written; one that is damaged, or another model's, ends in one line."""

import copy
import json

import pytest

from lesa_jax.base.errors import InputError
from lesa_jax.planning.placement import make_plan
from lesa_jax.planning.record import Growth, read_growth

PLAN = make_plan(4, "lesa", layers=6)  # 0-2 +2 .. 3
GROWTH = Growth("lesa", PLAN, {"seed": 0}, {"model": "x"}, {"parameters": {"before": 4, "after": 6}})


def write(folder, value):
    (folder / "growth.json").write_text(json.dumps(value))
    return folder


def test_what_was_written_comes_back(tmp_path):
    assert read_growth(write(tmp_path, GROWTH.to_json()), 6) == GROWTH


def test_a_record_of_another_depth_is_another_models(tmp_path):
    with pytest.raises(InputError, match="its plan has 6 layers, but the model has 4; the file belongs to another"):
        read_growth(write(tmp_path, GROWTH.to_json()), 4)


DAMAGES = {
    "no number": lambda v: v["plan"]["slots"][0].update(layer="0"),
    "a truth for a number": lambda v: v["plan"]["slots"][1].update(layer=True),
    "a word for a truth": lambda v: v["plan"]["slots"][2].update(new="no"),
    "out of range": lambda v: v["plan"]["slots"][2].update(layer=9, new=True),
    "below": lambda v: v["plan"]["slots"][2].update(layer=-1, new=True),
    "no slot": lambda v: v["plan"]["slots"].__setitem__(0, [0]),
    "out of order": lambda v: v["plan"]["slots"].reverse(),
    "an original missing": lambda v: v["plan"].update(source_layers=5),
    "no originals": lambda v: v["plan"].update(source_layers="4"),
    "no slots": lambda v: v["plan"].update(slots={"0": 0}),
    "no plan": lambda v: v.update(plan=[1]),
    "plan missing": lambda v: v.pop("plan"),
    "other new layers": lambda v: v.update(new_layers=[0, 1]),
    "fewer new layers": lambda v: v["new_layers"].pop(),
    "new layers of another kind": lambda v: v.update(new_layers=3),
    "method": lambda v: v.update(method=None),
    "settings": lambda v: v.update(settings="seed"),
    "source": lambda v: v.pop("source"),
    "measurements": lambda v: v.update(measurements=[]),
    "parameters": lambda v: v["measurements"].update(parameters={"before": "many"}),
    "versions": lambda v: v.update(versions=1),
    "format": lambda v: v.update(format=None),
    "trained": lambda v: v["measurements"].update(trained=5),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record_ends_in_one_line(tmp_path, damage):
    value = copy.deepcopy(GROWTH.to_json())
    DAMAGES[damage](value)
    with pytest.raises(InputError, match=r"growth\.json: (damaged \(|format None)") as caught:
        read_growth(write(tmp_path, value), 6)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "NaN", '{"format": 1'])
def test_what_is_no_json_object_ends_in_one_line(tmp_path, text):
    (tmp_path / "growth.json").write_text(text)
    with pytest.raises(InputError, match=r"growth\.json: ") as caught:
        read_growth(tmp_path, 6)
    assert "\n" not in str(caught.value)
