"""Options in a file are those of a command line, and what cannot be one is refused in a line."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lesa_jax.base.errors import InputError
from lesa_jax.base.recipes import settings_of, with_recipe
from lesa_jax.command import run_command


@dataclass(frozen=True)
class Group:
    rate: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    warm: bool = True


@dataclass(frozen=True)
class Settings:
    """What is done."""

    model: str | None = None
    layers: int | None = None
    text: Path | None = None
    dry_run: bool = False
    debug: bool = False
    group: Group = field(default_factory=Group)


def parsed(tmp_path: Path, text: str, *argv: str) -> Settings:
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    got = []
    assert run_command(got.append, Settings, lambda result: None, ["--recipe", str(file), *argv]) == 0
    return got[0]


RECIPE = """
# as on the command line
model: a folder   # with a space
layers: 24
dry-run: true
rate: 1e-4
betas: [0.5, 0.75]
warm: false
text: null
"""


def test_every_kind_of_value_arrives(tmp_path):
    expected = Settings("a folder", 24, None, True, group=Group(1e-4, (0.5, 0.75), False))
    assert parsed(tmp_path, RECIPE) == expected


def test_what_stands_beside_wins_wherever_it_stands(tmp_path):
    assert parsed(tmp_path, RECIPE, "--layers", "30").layers == 30
    got = []
    argv = ["--layers", "30", f"--recipe={tmp_path / 'recipe.yaml'}", "--no-dry-run"]
    run_command(got.append, Settings, lambda result: None, argv)
    assert (got[0].layers, got[0].dry_run, got[0].model) == (30, False, "a folder")


def test_a_record_of_an_earlier_run_is_a_recipe(tmp_path):
    """JSON is YAML, and only its settings count."""
    text = '{"format": 1, "versions": {"jax": "0"}, "settings": {"layers": 3, "text": false, "rate": 0.25}}'
    assert parsed(tmp_path, text) == Settings(layers=3, group=Group(0.25))


def test_what_was_not_recorded_must_be_named(tmp_path, capsys):
    text = '{"settings": {"text": true}}'
    assert parsed(tmp_path, text, "--text", "t.txt").text == Path("t.txt")
    file = tmp_path / "recipe.yaml"
    assert run_command(print, Settings, lambda result: None, ["--recipe", str(file)]) == 2
    assert "was made with --text, whose value it does not hold; name it, too" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("layer: 3", "no option layer: did you mean layers?"),
        ("- a\n- b", "expected an object of names and values, found list"),
        ("a: [1", "cannot be read as JSON or YAML"),
        ("layers: {a: 1}", "layers is dict; expected a word, a number, true or false"),
        ("layers: [[1]]", "layers is list; expected"),
        ("!!python/object/apply:os.system ['true']", "cannot be read as JSON or YAML"),
        ("", "holds no text"),
    ],
)
def test_other_files_are_refused_in_a_line(tmp_path, text, message, capsys):
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    assert run_command(print, Settings, lambda result: None, ["--recipe", str(file)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    [line] = captured.err.splitlines()
    assert message in line
    assert "--recipe" in line


def test_the_option_itself():
    with pytest.raises(InputError, match="--recipe: name a file"):
        with_recipe(["--layers", "3", "--recipe"], Settings)
    with pytest.raises(InputError, match="given twice"):
        with_recipe(["--recipe", "a", "--recipe=b"], Settings)
    with pytest.raises(InputError, match="--recipe no/such.yaml: cannot be read as UTF-8"):
        with_recipe(["--recipe", "no/such.yaml"], Settings)
    assert with_recipe(["--layers", "3"], Settings) == ["--layers", "3"]
    assert settings_of({"layers": 1}, Path()) == {"layers": 1}


def test_help_names_it(capsys):
    with pytest.raises(SystemExit):
        run_command(print, Settings, print, ["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "What is done." in shown
    assert "--recipe FILE takes options from a YAML file" in shown
