"""A compiled program, read from its text: its instructions, and how often each runs.

XLA's own counts take a loop's body once, however often it runs. Here everything is counted as often as it runs.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

BITS = {"pred": 8, "s4": 4, "u4": 4, "bf16": 16, "c64": 64, "c128": 128}  # others end with their number of bits

_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([^\s(]+) \(.*\) -> .* \{$")
_NAME = re.compile(r"^\s+(?:ROOT )?%?(\S+) = ")
_ARRAY = re.compile(r"\b([a-z]+\d*[a-z0-9]*)\[([\d,]*)\]")
_CALLED = re.compile(r"\b(?:calls|body|condition|branch_computations|called_computations|async_execution_thread)=")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')


@dataclass(frozen=True)
class Instruction:
    """One line: `%name = TYPE opcode(...)`, with all that follows."""

    name: str
    type: str
    opcode: str
    rest: str

    @property
    def operands(self) -> list[str]:
        """The names of what it reads."""
        return re.findall(r"%?([\w.\-]+)(?:,|\)|$)", self.rest[: self.rest.index(")") + 1])

    @property
    def source(self) -> str:
        """The operation that it comes from, as JAX names it."""
        found = re.search(r'op_name="([^"]*)"', self.rest)
        return found[1] if found else ""


@dataclass(frozen=True)
class Program:
    """A program's computations by name, and which of them is run."""

    bodies: Mapping[str, Sequence[Instruction]]
    entry: str

    def executed(self, fused: bool = True) -> Iterator[tuple[Instruction, int, str]]:
        """Every instruction that runs, how often, and the name of its computation; those `fused` into others, too."""

        def walk(name: str, times: int) -> Iterator[tuple[Instruction, int, str]]:
            for instruction in self.bodies.get(name, ()):
                yield instruction, times, name
                if instruction.opcode == "fusion" and not fused:
                    continue
                inside = times * trips(instruction, self.bodies) if instruction.opcode == "while" else times
                for called in called_by(instruction):
                    yield from walk(called, inside)

        return walk(self.entry, 1)


def read_program(text: str) -> Program:
    """The program of a compiled function's `as_text()`."""
    found: dict[str, list[Instruction]] = {}
    entry, current = "", []
    for line in text.splitlines():
        if (head := _COMPUTATION.match(line)) is not None:
            current = found.setdefault(head[1], [])
            entry = head[1] if line.startswith("ENTRY ") else entry
        elif (name := _NAME.match(line)) is not None:
            type_, rest = split_type(line[name.end() :])
            opcode, _, rest = rest.partition("(")
            current.append(Instruction(name[1], type_, opcode, rest))
    return Program(found, entry)


def split_type(text: str) -> tuple[str, str]:
    """`(f32[2]{0:T(8)}, u32[]) fusion(...)` as its type and the rest."""
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter in "({") - (letter in ")}")
        if depth == 0 and letter == " ":
            return text[:place], text[place + 1 :]
    return text, ""


def arrays(type_: str) -> list[tuple[str, tuple[int, ...]]]:
    """dtypes and sides of a type's arrays, without their layouts."""
    return [(dtype, tuple(int(side) for side in sides.split(",") if side)) for dtype, sides in _ARRAY.findall(type_)]


def type_bytes(type_: str) -> int:
    """Of all arrays of a type, without padding."""
    return sum(math.prod(sides) * bits_of(dtype) // 8 for dtype, sides in arrays(type_))


def bits_of(dtype: str) -> int:
    if dtype in BITS:
        return BITS[dtype]
    digits = re.match(r"[a-z]+(\d+)", dtype)  # f8e4m3fn has 8 bits
    return int(digits[1]) if digits else 0


def called_by(instruction: Instruction) -> list[str]:
    """The computations that run as parts of an instruction; not those that say how numbers are added."""
    names = []
    for match in _CALLED.finditer(instruction.rest):
        after = instruction.rest[match.end() :]
        listed = after[1 : after.index("}")] if after.startswith("{") else re.split(r"[,\s)]", after, maxsplit=1)[0]
        names += [name.strip().removeprefix("%") for name in listed.split(",")]
    return names


def trips(loop: Instruction, bodies: Mapping[str, Sequence[Instruction]]) -> int:
    """How often a loop runs: as the compiler wrote it down, or the bound that its condition compares with; else once.

    JAX's scans count from 0 by 1.
    """
    if (known := _TRIPS.search(loop.rest)) is not None:
        return int(known[1])
    condition = re.search(r"condition=%?([^\s,]+)", loop.rest)
    bounds = [
        int(number[1])
        for instruction in bodies.get(condition[1] if condition else "", ())
        if instruction.opcode == "constant" and (number := re.match(r"(\d+)\)", instruction.rest)) is not None
    ]
    return max(bounds, default=1)
