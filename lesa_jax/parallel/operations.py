"""What a compiled program computes: its kernels, and the floating-point operations of its products."""

import math
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from lesa_jax.parallel.hlo import Instruction, Program, arrays

# Custom calls by which the TPU's compiler manages memory and waits; they compute nothing.
MANAGING = re.compile(r"Async|Bitcast|Buffer|Bound|Indices|Sharding|SPMD|Resize|annotate|Pin|MoveTo", re.IGNORECASE)
PALLAS = (
    "tpu_custom_call"  # the target of all kernels that are written in Pallas; the instruction has the kernel's name
)
# Instructions that run nothing on the device: they name, arrange, or call others.
ARRANGING = re.compile(
    "parameter|constant|iota|tuple|get-tuple-element|bitcast|while|conditional|call|after-all|opt-barrier"
    "|partition-id|replica-id|.*-done"
)
LIBRARY = "__cublas"  # of NVIDIA's products
AGAIN = "rematted_computation"  # what `jax.checkpoint` computes again, by its name in an operation's source


@dataclass(frozen=True)
class Products:
    """Additions and multiplications of one device's matrix products and convolutions, kernels left out.

    `again` are those of what the backward pass computes once more (`--remat`).
    """

    once: int
    again: int


def kernels(program: Program) -> dict[str, int]:
    """Kernels that are no work of XLA's own, and how often they run."""
    found: defaultdict[str, int] = defaultdict(int)
    for instruction, times, _ in program.executed():
        target = call_target(instruction)
        if target is not None and not MANAGING.search(target):
            found[instruction.name.split(".")[0] if target == PALLAS else target] += times
    return dict(sorted(found.items()))


def call_target(instruction: Instruction) -> str | None:
    """Whom a custom call calls."""
    found = re.search(r'custom_call_target="([^"]*)"', instruction.rest)
    return found[1] if found else None


def launches(program: Program) -> int:
    """Kernels and copies that a program starts on a device, counted as often as they run."""
    return sum(
        times
        for instruction, times, _ in program.executed(fused=False)
        if not ARRANGING.fullmatch(instruction.opcode) and not MANAGING.search(call_target(instruction) or "")
    )


def products(program: Program) -> Products:
    """The operations of a program's products, counted as often as they run."""
    types = {one.name: one.type for body in program.bodies.values() for one in body}
    counts = {False: 0, True: 0}
    for instruction, times, _ in program.executed():
        if instruction.opcode == "convolution":
            counts[AGAIN in instruction.source] += times * convolution(instruction, types)
        elif instruction.opcode == "dot" or (call_target(instruction) or "").startswith(LIBRARY):
            counts[AGAIN in instruction.source] += times * dot(instruction, types)
    return Products(once=counts[False], again=counts[True])


def sides(type_: str) -> tuple[int, ...]:
    """The sides of a type's first array."""
    return arrays(type_)[0][1]


def dot(instruction: Instruction, types: Mapping[str, str]) -> int:
    """Operations of a `dot`, or of a library's: each number of its result is a sum over the contracted sides."""
    left = sides(types[instruction.operands[0]])
    listed = re.search(r'lhs_contracting_dim(?:s=|ensions":)[\[{]([\d,"]*)[\]}]', instruction.rest)
    contracted = [left[int(place)] for place in re.findall(r"\d+", listed[1])] if listed else []
    return 2 * math.prod(sides(instruction.type)) * math.prod(contracted)


def convolution(instruction: Instruction, types: Mapping[str, str]) -> int:
    """Operations of a `convolution`, which is how the TPU's compiler writes products; padding costs nothing."""
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.rest)
    assert labels is not None
    left, right, result = (
        dict(zip(names, sides(type_), strict=True))
        for names, type_ in zip(
            labels.groups(), (*(types[name] for name in instruction.operands[:2]), instruction.type), strict=True
        )
    )
    window = dict(re.findall(r"(\w+)=([^\s}]+)", (re.search(r"window=\{([^}]*)\}", instruction.rest) or [""])[0]))
    reached = 1
    for place in (name for name in result if name.isdigit()):
        reached *= inside(left[place], right[place], result[place], window, int(place))
    return 2 * result["b"] * result["f"] * right["i"] * reached


def inside(size: int, kernel: int, places: int, window: Mapping[str, str], axis: int) -> int:
    """Along one side: pairs of places of the result and of the kernel that meet a number and no padding."""

    def given(name: str, otherwise: str) -> str:
        return window[name].split("x")[axis] if name in window else otherwise

    stride, dilation, holes = (int(given(name, "1")) for name in ("stride", "rhs_dilate", "lhs_dilate"))
    before = int(given("pad", "0_0").split("_")[0])
    reads = (place * stride + tap * dilation - before for place in range(places) for tap in range(kernel))
    return sum(0 <= read < (size - 1) * holes + 1 and read % holes == 0 for read in reads)
