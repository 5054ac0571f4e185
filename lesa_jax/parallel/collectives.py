"""What the devices of a compiled program send each other, and how often."""

import math
import re
from dataclasses import dataclass

from lesa_jax.parallel.hlo import Program, arrays, type_bytes

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")


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


def collectives(program: Program) -> tuple[Collective, ...]:
    """All that devices send each other, the largest first.

    An asynchronous one is written down where it starts, where it goes on and where it ends, each time with the same
    channel: it counts once.
    """
    found: dict[tuple[str, str, str], Collective] = {}
    for instruction, times, inside in program.executed():
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
        channel = re.search(r"channel_id=(\d+)", instruction.rest)
        one = Collective(kind, times, nbytes, group, instruction.source)
        key = (kind, channel[1] if channel else instruction.name, str(arrays(instruction.type)))
        if key not in found or found[key].times < times:
            found[key] = one
    moved = (one for one in found.values() if one.group > 1)
    return tuple(sorted(moved, key=lambda one: one.sent, reverse=True))


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
