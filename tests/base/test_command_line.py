"""Settings and the command that asks for them."""

import shlex
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import tyro

from lesa_jax.base.settings import command_line


@dataclass(frozen=True)
class Inner:
    betas: tuple[float, float] = (0.9, 0.95)
    shown: bool = True


@dataclass(frozen=True)
class Outer:
    model: str | None = None
    learning_rate: float = 2e-4
    output: Path = Path("out")
    keep_models: bool = False
    inner: Inner = field(default_factory=Inner)


def test_defaults_are_left_out():
    assert command_line("python -m door", Outer()) == "python -m door"


def test_a_command_is_quoted_for_a_shell():
    asked = Outer("my model's", output=Path("a b"), keep_models=True)
    assert command_line("lesa x", asked) == """lesa x --model 'my model'"'"'s' --output 'a b' --keep-models"""


@pytest.mark.parametrize(
    "asked",
    [
        Outer(),
        Outer("$HOME/*.txt", 1e-05, Path("/x/y z"), True),
        Outer(inner=Inner((0.5, 0.25), False)),
    ],
)
def test_the_command_asks_for_the_same_settings(asked):
    words = shlex.split(command_line("door", asked))
    assert words[0] == "door"
    assert tyro.cli(Outer, args=words[1:], config=(tyro.conf.OmitArgPrefixes,)) == asked
