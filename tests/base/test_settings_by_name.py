"""A command as a function of names, of an object of settings, or of both."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lesa_jax.base.errors import InputError
from lesa_jax.base.settings import by_name
from lesa_jax.expand import expand
from lesa_jax.growth.settings import ExpandSettings
from lesa_jax.planning.methods import PredictorSettings
from tests.support.tiny import tiny


@dataclass(frozen=True)
class Group:
    rate: float = 0.1
    table: Path | None = None


@dataclass(frozen=True)
class Settings:
    output: Path = Path("out")
    name: str = "a"
    group: Group = field(default_factory=Group)


@by_name(Settings)
def command(settings: Settings) -> Settings:
    """Says what it was given."""
    return settings


def test_names_reach_the_groups_and_strings_are_paths_where_paths_are_meant():
    expected = Settings(Path("x/y"), "b", Group(0.5, Path("t.csv")))
    assert command(output="x/y", name="b", rate=0.5, table="t.csv") == expected
    assert command(output=Path("x/y"), name="b", rate=0.5, table=Path("t.csv")) == expected
    assert command() == command(Settings()) == Settings()


def test_names_beside_an_object_change_it():
    given = Settings(name="c", group=Group(rate=0.25))
    assert command(given, table="t") == Settings(name="c", group=Group(0.25, Path("t")))
    assert given.group.table is None


def test_another_name_is_refused():
    with pytest.raises(InputError, match=r"^Settings has no outptu: did you mean output\?$"):
        command(outptu="x")


def test_it_is_still_that_function():
    assert (command.__name__, command.__doc__) == ("command", "Says what it was given.")


def test_expand_by_name_is_expand_by_settings(tmp_path):
    model = str(tiny("llama"))
    named = expand(model=model, output=str(tmp_path / "a"), method="lesa", gaps="1", epochs=1, hidden_size=8)
    predictor = PredictorSettings(epochs=1, hidden_size=8)
    expand(ExpandSettings(model, tmp_path / "b", method="lesa", gaps="1", predictor=predictor))
    assert named.output == tmp_path / "a"
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()
