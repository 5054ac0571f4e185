"""What the page on trouble quotes are messages of this software, and what it advises can be given."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import lesa_jax

PAGE = Path(__file__).parents[2] / "docs" / "troubleshooting.md"
ROWS = re.findall(r"^\| `(.+?)` \| (.+) \|$", PAGE.read_text(), re.MULTILINE)
ANYTHING = "\0"  # for what varies in a message


def messages() -> Iterator[str]:
    """Every string of the source, as it is printed but for what varies."""
    for path in Path(lesa_jax.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                yield "".join(str(part.value) if isinstance(part, ast.Constant) else ANYTHING for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


SOURCE = set(messages())


def is_said(message: str) -> bool:
    pattern = re.compile(".*".join(re.escape(part) for part in message.split("...")), re.DOTALL)
    return any(pattern.search(said) for said in SOURCE)


def test_rows_are_found():
    """The tests below prove nothing about a page in which they see no row."""
    table_lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    assert len(ROWS) == len(table_lines) > 30


@pytest.mark.parametrize("message", [message for message, _ in ROWS], ids=lambda message: message[:40])
def test_it_is_a_message_of_this_software(message):
    words = sum(len(part) for part in message.split("..."))
    assert words >= 30, "too little of it is quoted to be found"
    assert is_said(message)


def test_another_message_is_none():
    assert not is_said("--model ...: gated on the hub; buy its licence there and run ...")
    assert not is_said("--mesh ...: does not divide the ... devices of this run; use data=-1 for the rest")
