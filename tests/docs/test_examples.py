"""Every recipe in examples/ does what its comment says; what growth.json records is a recipe, too."""

import json
import sys
from pathlib import Path

import pytest
import yaml

from lesa_jax import demo
from lesa_jax.base.recipes import with_recipe
from lesa_jax.checkpoint.reader import open_checkpoint
from lesa_jax.expand import main
from lesa_jax.planning.record import read_growth
from lesa_jax.training.settings import TrainSettings
from tests.support.tiny import tiny

EXAMPLES = Path(__file__).parents[2] / "examples"
RECIPES = {file.stem: file for file in sorted(EXAMPLES.glob("*.yaml"))}
MORE = {
    # what a recipe's comment leaves to the user, or would take too long here
    "lesa": ["--epochs", "1"],
    "importance": ["--placement-text", str(demo.MODEL_DIRECTORY.parent / "__init__.py")],
}
GROWN = sorted(RECIPES.keys() - {"msg_train"})
CASES = [name if name == "solar" else pytest.param(name, marks=pytest.mark.slow) for name in GROWN]


def expand(monkeypatch, *argv: object) -> int:
    monkeypatch.setattr(sys, "argv", ["lesa expand", *map(str, argv)])
    return main()


@pytest.mark.parametrize("name", RECIPES)
def test_each_says_how_it_is_used(name):
    comment = [line for line in RECIPES[name].read_text().splitlines() if line.startswith("#")]
    owner = [line for line in RECIPES["msg"].read_text().splitlines() if line.startswith("#")]
    door = "train" if name.endswith("_train") else "expand"
    assert any(f"lesa {door} --recipe examples/{name}.yaml --model" in line for line in comment + owner)


@pytest.mark.parametrize("name", CASES)
def test_it_grows(tmp_path, monkeypatch, name):
    model = demo.MODEL_DIRECTORY if name == "importance" else tiny("mixtral" if name == "moe" else "llama")
    out, more = tmp_path / "out", MORE.get(name, [])
    assert expand(monkeypatch, "--recipe", RECIPES[name], "--model", model, "--output", out, *more) == 0
    wanted = yaml.safe_load(RECIPES[name].read_text())
    growth = read_growth(out, open_checkpoint(model).config["num_hidden_layers"] * 3 // 2)
    recorded = {key: value for key, value in growth.settings.items() if key in wanted}
    assert recorded == {key: value for key, value in wanted.items() if key in growth.settings}


def test_training_options_are_known():
    words = with_recipe(["--recipe", str(RECIPES["msg_train"])], TrainSettings)
    assert words == ["--train", "all", "--mask-steps", "400", "--learning-rate", "1e-4"]


@pytest.mark.parametrize(
    "options",
    [["--method", "lesa", "--gaps", "1,3,3", "--epochs", "1", "--seed", "3"], ["--method", "solar", "--layers", "8"]],
)
def test_growth_json_makes_the_same_again(tmp_path, monkeypatch, options):
    model, first, again = str(tiny("llama")), tmp_path / "first", tmp_path / "again"
    assert expand(monkeypatch, "--model", model, "--output", str(first), *options) == 0
    record = str(first / "growth.json")
    assert expand(monkeypatch, "--recipe", record, "--model", model, "--output", str(again)) == 0
    assert (again / "model.safetensors").read_bytes() == (first / "model.safetensors").read_bytes()


def test_a_record_does_not_hold_texts(tmp_path, monkeypatch, capsys):
    """Nor does growth.json of one that was calibrated, whose other options are those of any."""
    first = tmp_path / "first"
    assert expand(monkeypatch, "--model", tiny("llama"), "--output", first, "--method", "duplicate", "--gaps", "3") == 0
    record = json.loads((first / "growth.json").read_text())
    assert record["settings"]["calibrate"] is False
    record["settings"]["calibrate"] = True
    (tmp_path / "calibrated.json").write_text(json.dumps(record))
    capsys.readouterr()
    assert expand(monkeypatch, "--recipe", tmp_path / "calibrated.json", "--output", tmp_path / "again") == 2
    assert "was made with --calibrate, whose value it does not hold; name it, too" in capsys.readouterr().err
