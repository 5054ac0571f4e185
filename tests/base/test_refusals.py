"""What a command line is refused for is one line that names the option and what it takes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from lesa_jax.base.refusals import refusal
from lesa_jax.command import run_command


@dataclass(frozen=True)
class Group:
    betas: tuple[float, float] = (0.9, 0.95)
    """Two numbers."""


@dataclass(frozen=True)
class Settings:
    """What is done."""

    layers: int | None = None
    """A number or nothing."""
    placement: Literal["top", "even"] | None = None
    """One of two."""
    dry_run: bool = False
    """A switch."""
    output: Path = Path("out")
    """Anywhere."""
    group: Group = Group()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--layrs", "3"], "--layrs: no such option: did you mean layers?"),
        (["--tracker", "3"], "--tracker: no such option; PROGRAM --help lists all"),
        (["three"], "three: belongs to no option; PROGRAM --help shows how they are given"),
        (["--dry-run", "yes"], "yes: belongs to no option; PROGRAM --help shows how they are given"),
        (["--layers", "many", "--output", "here"], "--layers many: expected INT"),
        (["--layers=many"], "--layers many: expected INT"),
        (["--layers", "--dry-run"], "--layers: takes a value, which must follow it"),
        (["--betas", "0.9", "--dry-run"], "--betas: takes 2 values, which must follow it"),
        (["--betas", "a", "b"], "--betas a b: expected FLOAT FLOAT"),
        (["--placement", "tip"], "--placement tip: expected one of even, top"),
    ],
)
def test_one_line(words, line, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["PROGRAM"])
    assert run_command(print, Settings, print, words) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == f"error: {line}\n"


def test_a_terminal_without_lines_to_draw_with_does_not_matter_either():
    """As it is printed where the output is no UTF-8; elsewhere in this file pytest's own output decides."""
    box = """ Value error
 ------------------------------------------------------------------------------
  Error parsing --layers: no type matching {None}|INT could be instantiated from
  ['many'].

  Got errors:
  - <class 'int'>: invalid literal for int() with base 10: 'many'
  ------------------------------------------------------------------------------
  Argument helptext:
      --layers {None}|INT
      Target depth. (default: None)
  ------------------------------------------------------------------------------
  For full helptext, see PROGRAM --help
"""
    assert refusal(box, ["--layers", "many"], ["--layers"]) == "--layers many: expected INT"
    edged = "\n".join(f"│{line}│" for line in box.replace("-" * 78, "─" * 78).splitlines()[2:])
    assert refusal(f"╭─ Value error ───╮\n{edged}\n╰──────╯", ["--layers=many"], []) == "--layers many: expected INT"


@pytest.mark.parametrize("columns", ["40", "200"])
def test_narrow_terminals_do_not_matter(columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    assert run_command(print, Settings, print, ["--placement", "tip"]) == 2
    assert capsys.readouterr().err == "error: --placement tip: expected one of even, top\n"


def test_what_is_no_known_box_is_said_as_it_is():
    assert refusal("something\n  else", [], []) == "something else"
    box = "╭─ New kind ─╮\n│ Something  │\n│ else.      │\n│ ────────── │\n│ Help       │\n╰────────────╯"
    assert refusal(box, [], []) == "Something else."
