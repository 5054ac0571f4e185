"""Checkpoint names <-> stacked arrays: the tree is the checkpoint, split at the dots.

Every numeric part of a name becomes an axis. The layers' `model.layers.0.mlp.up_proj.weight`,
`model.layers.1.mlp.up_proj.weight`, ... are one `Stack` with the template `model.layers.*.mlp.up_proj.weight`, found in
the parameter tree under `params["model"]["layers"]["mlp"]["up_proj"]["weight"]`, shape [layers, out, in];
`model.layers.3.mlp.experts.7.up_proj.weight` adds an expert axis. Names are parsed, never edited with string
replacement, so layer 3 is not layer 30 and not expert 3. There is no table per model family: whatever a checkpoint
calls its tensors is what the tree calls them, and the way back is exact.
"""

import itertools
import math
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.format import TensorSpec

Tree = dict[str, Any]  # nested, its leaves stacked arrays (or what stands for them: shapes, shardings)


@dataclass(frozen=True)
class Stack:
    """Tensors of one shape and dtype whose names differ only in numbers that count.

    Attributes:
      template: the name with `*` for every counted number.
      starts: the first number on each axis, ().. for a tensor without numbers.
      sizes: how many numbers each axis counts; the stacked array has the shape `sizes + spec.shape`.
      spec: shape and dtype of one tensor.
      whole: False when the first axis is only a run of the layers (others have another shape, or lack the tensor).
    """

    template: str
    starts: tuple[int, ...]
    sizes: tuple[int, ...]
    spec: TensorSpec
    whole: bool = True

    @property
    def prefix(self) -> str:
        """The name before the first counted number: `model.layers.`; empty when nothing is counted."""
        return self.template.split("*", 1)[0] if self.sizes else ""

    @property
    def path(self) -> tuple[str, ...]:
        """Keys into the parameter tree. A run that is not whole says so: `layers[2:5]`."""
        parts = self.template.split(".")
        if self.sizes and not self.whole:
            at = parts.index("*")
            parts[at - 1] += f"[{self.starts[0]}:{self.starts[0] + self.sizes[0]}]"
        return tuple(part for part in parts if part != "*")

    def name(self, *numbers: int) -> str:
        """The checkpoint's name of the tensor with these numbers, one for each axis."""
        return render(self.template, numbers)

    def numbers(self) -> Iterator[tuple[int, ...]]:
        """All numbers in row-major order of the stacked array."""
        return itertools.product(*(range(a, a + n) for a, n in zip(self.starts, self.sizes, strict=True)))

    def names(self) -> list[str]:
        return [self.name(*numbers) for numbers in self.numbers()]

    def covers(self, layer: int) -> bool:
        return bool(self.sizes) and self.starts[0] <= layer < self.starts[0] + self.sizes[0]


def parse(name: str) -> tuple[str, tuple[int, ...]]:
    """Splits a name into its template and its numbers: `h.3.w` -> (`h.*.w`, (3,)).

    A part counts when it is a decimal number written the usual way (`7`, not `07`).
    """
    numbers, parts = [], []
    for part in name.split("."):
        if part.isascii() and part.isdigit() and str(int(part)) == part:
            numbers.append(int(part))
            parts.append("*")
        else:
            parts.append(part)
    return ".".join(parts), tuple(numbers)


def render(template: str, numbers: Iterable[int]) -> str:
    """The inverse of `parse`."""
    remaining = iter(numbers)
    return ".".join(str(next(remaining)) if part == "*" else part for part in template.split("."))


def stack_names(specs: Mapping[str, TensorSpec]) -> list[Stack]:
    """Groups tensors into stacks; their names, taken together, are exactly the names given.

    Args:
      specs: shape and dtype of each tensor, by name.

    Returns:
      Stacks in order of template and layer. Runs of layers whose shapes or expert counts differ are separate stacks.
    """
    by_template: dict[str, dict[tuple[int, ...], TensorSpec]] = {}
    for name, spec in specs.items():
        template, numbers = parse(name)
        by_template.setdefault(template, {})[numbers] = spec
    depths: dict[str, int] = {}
    for template, members in by_template.items():
        if "*" in template:
            prefix = template.split("*", 1)[0]
            depths[prefix] = max(depths.get(prefix, 0), 1 + max(numbers[0] for numbers in members))
    stacks = []
    for template, members in sorted(by_template.items()):
        stacks += _runs(template, members, depths)
    paths = [stack.path for stack in stacks]
    if len(set(paths)) != len(paths):  # `a.0.w` beside `a.w`: never seen in a real checkpoint
        double = next(path for path in paths if paths.count(path) > 1)
        raise InputError(f"tensor names collide at {'.'.join(double)}: one with a number, one without; rename one")
    return stacks


def _runs(template: str, members: dict[tuple[int, ...], TensorSpec], depths: Mapping[str, int]) -> list[Stack]:
    """Cuts the tensors of one template into the longest runs of layers that are alike."""
    if "*" not in template:
        return [Stack(template, (), (), members[()])]
    prefix = template.split("*", 1)[0]

    layers: dict[int, dict[tuple[int, ...], TensorSpec]] = {}
    for numbers, spec in sorted(members.items()):
        layers.setdefault(numbers[0], {})[numbers[1:]] = spec

    stacks: list[Stack] = []
    previous: tuple[int, Hashable] | None = None
    for layer, inside in layers.items():
        signature = tuple(inside.items())
        if previous == (layer - 1, signature):
            last = stacks[-1]
            stacks[-1] = replace(last, sizes=(last.sizes[0] + 1, *last.sizes[1:]))
            previous = (layer, signature)
            continue
        grid = _grid(inside)
        if grid is None:  # experts that are not alike: every tensor by itself, only the layer counts
            head, _, tail = template.partition("*")
            stacks += [Stack(f"{head}*{render(tail, rest)}", (layer,), (1,), spec) for rest, spec in inside.items()]
            previous = None
            continue
        starts, sizes, spec = grid
        stacks.append(Stack(template, (layer, *starts), (1, *sizes), spec))
        previous = (layer, signature)
    depth = depths[prefix]
    return [replace(s, whole=not s.sizes or (s.starts[0] == 0 and s.sizes[0] == depth)) for s in stacks]


def _grid(inside: Mapping[tuple[int, ...], TensorSpec]) -> tuple[tuple[int, ...], tuple[int, ...], TensorSpec] | None:
    """Starts, sizes and spec if the numbers fill a box and all specs agree, else None."""
    specs = set(inside.values())
    axes = [sorted(set(axis)) for axis in zip(*inside, strict=True)]
    full = math.prod(len(axis) for axis in axes) == len(inside)
    contiguous = all(axis == list(range(axis[0], axis[0] + len(axis))) for axis in axes)
    if len(specs) != 1 or not full or not contiguous:
        return None
    return tuple(axis[0] for axis in axes), tuple(len(axis) for axis in axes), specs.pop()
