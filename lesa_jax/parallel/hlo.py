"""What a compiled program does, read from its text: what devices send each other, and which kernels run, how often.

XLA's own counts take a loop's body once, however often it runs. Here everything is counted as often as it runs.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
BITS = {"pred": 8, "s4": 4, "u4": 4, "bf16": 16, "c64": 64, "c128": 128}  # others end with their number of bits
# Custom calls by which the TPU's compiler manages memory and waits; they compute nothing.
MANAGING = re.compile(r"Async|Bitcast|Buffer|Bound|Indices|Sharding|SPMD|Resize|annotate|Pin|MoveTo", re.IGNORECASE)

PALLAS = (
    "tpu_custom_call"  # the target of all kernels that are written in Pallas; the instruction has the kernel's name
)

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


@dataclass(frozen=True)
class Collective:
    """What devices send each other at one place of the program.

    Attributes:
      kind: one of KINDS.
      times: how often it runs in one execution of the program.
      nbytes: of the whole array, gathered or not yet scattered, each time, in what one device sees.
      group: devices that take part.
      source: the operation that it comes from, as JAX names it.
    """

    kind: str
    times: int
    nbytes: int
    group: int
    source: str

    @property
    def sent(self) -> float:
        """Bytes that one device sends in all, by the best algorithm there is."""
        share = (self.group - 1) / self.group if self.kind != "collective-permute" else 1.0
        return self.times * self.nbytes * share * (2 if self.kind == "all-reduce" else 1)


def computations(text: str) -> tuple[dict[str, list[Instruction]], str]:
    """The program's computations by name, and which is run."""
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
    return found, entry


def split_type(text: str) -> tuple[str, str]:
    """`(f32[2]{0:T(8)}, u32[]) fusion(...)` as its type and the rest."""
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter in "({") - (letter in ")}")
        if depth == 0 and letter == " ":
            return text[:place], text[place + 1 :]
    return text, ""


def type_bytes(type_: str) -> int:
    """Of all arrays of a type, without padding."""
    return sum(
        math.prod(int(side) for side in sides.split(",") if side) * bits_of(dtype) // 8
        for dtype, sides in _ARRAY.findall(type_)
    )


def bits_of(dtype: str) -> int:
    if dtype in BITS:
        return BITS[dtype]
    digits = re.match(r"[a-z]+(\d+)", dtype)  # f8e4m3fn has 8 bits
    return int(digits[1]) if digits else 0


def executed(text: str) -> Iterator[tuple[Instruction, int, str]]:
    """Every instruction that runs, how often, and the name of its computation."""
    bodies, entry = computations(text)

    def walk(name: str, times: int) -> Iterator[tuple[Instruction, int, str]]:
        for instruction in bodies.get(name, ()):
            yield instruction, times, name
            inside = times * trips(instruction, bodies) if instruction.opcode == "while" else times
            for called in called_by(instruction):
                yield from walk(called, inside)

    yield from walk(entry, 1)


def called_by(instruction: Instruction) -> list[str]:
    """The computations that run as parts of an instruction; not those that say how numbers are added."""
    names = []
    for match in _CALLED.finditer(instruction.rest):
        after = instruction.rest[match.end() :]
        listed = after[1 : after.index("}")] if after.startswith("{") else re.split(r"[,\s)]", after, maxsplit=1)[0]
        names += [name.strip().removeprefix("%") for name in listed.split(",")]
    return names


def trips(loop: Instruction, bodies: dict[str, list[Instruction]]) -> int:
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


def collectives(text: str) -> tuple[Collective, ...]:
    """All that devices send each other, the largest first.

    An asynchronous one is written down where it starts, where it goes on and where it ends, each time with the same
    channel: it counts once.
    """
    found: dict[tuple[str, str, str], Collective] = {}
    for instruction, times, inside in executed(text):
        kind = instruction.opcode.removesuffix("-start")
        if kind not in KINDS:
            continue
        group, nbytes = group_size(instruction.rest), type_bytes(instruction.type)
        if instruction.opcode in ("all-gather-start", "reduce-scatter-start"):  # their results are parts and wholes
            nbytes = nbytes * group // (group + 1)
        elif instruction.opcode in ("collective-permute-start", "all-to-all-start"):
            nbytes //= 2
        elif kind == "reduce-scatter":  # its result is a part
            nbytes *= group
        elif inside.startswith("all-reduce-scatter"):  # of which each device keeps a part, on a TPU
            kind = "reduce-scatter"
        source = re.search(r'op_name="([^"]*)"', instruction.rest)
        channel = re.search(r"channel_id=(\d+)", instruction.rest)
        one = Collective(kind, times, nbytes, group, source[1] if source else "")
        key = (kind, channel[1] if channel else instruction.name, shape_of(instruction.type))
        if key not in found or found[key].times < times:
            found[key] = one
    moved = (one for one in found.values() if one.group > 1)
    return tuple(sorted(moved, key=lambda one: one.sent, reverse=True))


def shape_of(type_: str) -> str:
    """A type without its layouts."""
    return ",".join(f"{dtype}[{sides}]" for dtype, sides in _ARRAY.findall(type_))


def group_size(rest: str) -> int:
    """How many devices take part: {{0,1},{2,3}}, [2,2]<=[4] or mesh['a'=2,'b'=2] {'a'}."""
    if (listed := re.search(r"replica_groups=\{\{([\d,]+)\}", rest)) is not None:
        return listed[1].count(",") + 1
    if (counted := re.search(r"replica_groups=\[\d+,(\d+)\]", rest)) is not None:
        return int(counted[1])
    if (named := re.search(r"replica_groups=(?:@?\w*)mesh\[([^\]]*)\]\s*\{([^}]*)\}", rest)) is not None:
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", named[1]))
        return math.prod(int(sizes.get(axis, 1)) for axis in re.findall(r"'([^']+)'", named[2]))
    return 2 if "source_target_pairs={{" in rest else 1


def kernels(text: str) -> dict[str, int]:
    """Kernels that are no work of XLA's own, and how often they run."""
    found: defaultdict[str, int] = defaultdict(int)
    for instruction, times, _ in executed(text):
        target = re.search(r'custom_call_target="([^"]*)"', instruction.rest)
        if target is None or MANAGING.search(target[1]):
            continue
        name = instruction.name.split(".")[0] if target[1] == PALLAS else target[1]
        found[name] += times
    return dict(sorted(found.items()))
