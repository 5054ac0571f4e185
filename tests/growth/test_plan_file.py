"""`--plan` grows what its file says, through the checks that `--gaps` goes through, and growth.json keeps no path."""

import json

import pytest

from lesa_jax.base.errors import InputError
from lesa_jax.planning.placement import make_plan
from tests.support.growth import grow
from tests.support.tiny import tiny


def write(folder, value):
    (folder / "plan.json").write_text(json.dumps(value))
    return folder / "plan.json"


def content(folder):
    """Every file; of growth.json all but how the user named the places."""
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lesa_jax.json"}
    growth = json.loads(files.pop("growth.json"))
    growth["settings"] = {k: v for k, v in growth["settings"].items() if k not in ("gaps", "plan")}
    return files, growth


@pytest.mark.parametrize(
    ("family", "method", "gaps"),
    [
        ("qwen3_moe", "duplicate", [0, 2]),
        ("gemma3", "tli", [1, 2, 4]),
        pytest.param("llama", "average", [1, 3, 3], marks=pytest.mark.slow),
        pytest.param("gemma3", "llama_pro", [1, 3, 3], marks=pytest.mark.slow),
    ],
)
def test_a_plan_grows_what_its_gaps_do(tmp_path, family, method, gaps):
    file = write(tmp_path, {"gaps": gaps})
    plan = grow(tiny(family), tmp_path / "file", method, plan=file).plan
    assert plan == grow(tiny(family), tmp_path / "gaps", method, gaps=",".join(map(str, gaps))).plan
    assert content(tmp_path / "file") == content(tmp_path / "gaps")
    assert json.loads((tmp_path / "file" / "growth.json").read_text())["settings"]["plan"] is True
    assert json.loads((tmp_path / "gaps" / "growth.json").read_text())["settings"]["plan"] is False
    again = grow(tiny(family), tmp_path / "again", method, plan=tmp_path / "gaps" / "growth.json")
    assert again.plan == plan
    assert content(tmp_path / "again") == content(tmp_path / "gaps")
    first, second = ((tmp_path / name / "growth.json").read_bytes() for name in ("file", "again"))
    assert first == second


def test_copies_in_another_methods_places_are_that_methods_model(tmp_path):
    """Its kinds of layers, too, which alternate."""
    file = write(tmp_path, make_plan(6, "solar", 9).to_json())
    grow(tiny("gemma2"), tmp_path / "file", "duplicate", plan=file)
    grow(tiny("gemma2"), tmp_path / "solar", "solar", layers=9)
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "file" / name).read_bytes() == (tmp_path / "solar" / name).read_bytes()


def test_stacks_grow_by_plans_of_their_own(tmp_path):
    plan = grow(tiny("t5"), tmp_path / "out", "duplicate", plan=write(tmp_path, {"gaps": [3], "encoder": {"gaps": []}}))
    assert str(plan.plan) == "encoder 0-3; decoder 0-3 +3 4"


OTHERS = [{"layers": 9}, {"gaps": "1"}, {"placement": "top"}, {"stack": "both"}, {"every": 2, "method": "tli"}]
BAD = [
    *(("llama", other, f"--plan says where every new layer goes: leave out --{next(iter(other))}") for other in OTHERS),
    ("llama", {"method": "solar"}, "--method solar repeats the model as a whole and has no --plan"),
    ("qwen3_moe", {}, "gap 0: LESA predicts from both neighbours"),
    ("bart", {"method": "llama_pro"}, "no silenced layer is the identity"),
]


@pytest.mark.parametrize(("family", "options", "message"), BAD)
def test_what_gaps_cannot_have_a_plan_cannot(tmp_path, family, options, message):
    plan = {"gaps": [0]} | ({"encoder": {"gaps": [0]}} if family == "bart" else {})
    options = {"method": "lesa", "plan": write(tmp_path, plan)} | options
    with pytest.raises(InputError, match=message) as caught:
        grow(tiny(family), tmp_path / "out", **options)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]
