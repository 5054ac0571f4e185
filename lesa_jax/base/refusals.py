"""What tyro has against a command line, which it prints as a box of several lines, in one line with a remedy."""

import re
from collections.abc import Iterable, Sequence

from lesa_jax.base.errors import did_you_mean

COLOURS = re.compile(r"\x1b\[[0-9;]*m")
EDGE = re.compile(r"[╭╰].*")
RULE = re.compile(r"[─-]{3,}")  # dashes where the output is no UTF-8
UNKNOWN = re.compile(r"Unrecognized options?: (.+)")
NO_VALUE = re.compile(r"Missing value for argument '(?P<option>\S+)'. Expected (?P<count>\d+) values?")
NO_CHOICE = re.compile(
    r"invalid choice '(?P<value>.*)' for argument '(?P<option>\S+)'. Expected one of \((?P<all>.*)\)"
)
BAD_VALUE = re.compile(r"Error parsing (?P<option>\S+): ")
HELP = re.compile(r"(?:see|run) (.* --help)")


def refusal(box: str, words: Sequence[str], options: Iterable[str]) -> str:
    """One line.

    Args:
      box: as printed; what is none of the known ones is given as it is, in one line.
      words: the command line.
      options: all that the command has, with their dashes.
    """
    said, *rest = parts_of(box)
    found = HELP.search(" ".join(rest))
    help_call = "--help" if found is None else found[1]
    if found := UNKNOWN.match(said):
        return unknown(found[1].split(", "), options, help_call)
    if found := NO_VALUE.match(said):
        count = int(found["count"])
        return f"{found['option']}: takes {'a value' if count == 1 else f'{count} values'}, which must follow it"
    if found := NO_CHOICE.match(said):
        known = sorted(name for name in re.findall(r"'([^']*)'", found["all"]) if name != "None")
        return f"{found['option']} {found['value']}: expected one of {', '.join(known)}"
    if found := BAD_VALUE.match(said):
        name = found["option"]
        kind = re.search(rf"(?m)^\s*{name} (.+)$", "\n".join(rest))
        takes = name if kind is None else kind[1].replace("{None}|", "")
        return f"{' '.join([name, *values_of(name, words)])}: expected {takes}"
    return said


def parts_of(box: str) -> list[str]:
    """What a box says, and what stands behind each further rule, there with its lines."""
    lines = COLOURS.sub("", box).splitlines()
    bordered = any(line.startswith("│") for line in lines)
    parts: list[list[str]] = [[]]
    for line in (line.strip("│ ") for line in lines if not EDGE.match(line)):
        if RULE.fullmatch(line):
            parts.append([])
        else:
            parts[-1].append(line)
    if not bordered and len(parts) > 1:  # then the first one is the title
        parts = parts[1:]
    said, *rest = parts
    return [" ".join(" ".join(said).split()), *("\n".join(part) for part in rest)]


def unknown(words: Sequence[str], options: Iterable[str], help_call: str) -> str:
    """Of words that no option takes: the first one that looks like an option, or the first one."""
    name = next((word for word in words if word.startswith("--")), None)
    if name is None:
        return f"{words[0]}: belongs to no option; {help_call} shows how they are given"
    near = did_you_mean(name.removeprefix("--"), [other.removeprefix("--") for other in options])
    return f"{name}: no such option{near or f'; {help_call} lists all'}"


def values_of(name: str, words: Sequence[str]) -> list[str]:
    """What stands behind an option, up to the next one."""
    found: list[str] = []
    for number, word in enumerate(words):
        if word == name:
            found = list(words[number + 1 :])
        elif word.startswith(f"{name}="):
            found = [word.removeprefix(f"{name}="), "--"]
    end = next((number for number, word in enumerate(found) if word.startswith("--")), len(found))
    return found[:end]
