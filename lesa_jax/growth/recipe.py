"""What every tensor of the grown checkpoint is made of, tensor by tensor, before any weight is touched."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.format import FLOATS, TensorSpec
from lesa_jax.checkpoint.names import Stack
from lesa_jax.checkpoint.reader import Checkpoint
from lesa_jax.families.kinds import kind_name
from lesa_jax.families.loudness import Loudness, loudness_of
from lesa_jax.families.roles import ROUTERS, expert_count, is_linear, is_shared, writes_residual
from lesa_jax.families.table import description
from lesa_jax.growth.beside import stacks_beside
from lesa_jax.growth.orders import Orders, stack_orders
from lesa_jax.growth.resizing import Resize
from lesa_jax.planning.methods import Aligned, Method, NormSource
from lesa_jax.planning.plan import Plan, fractions


@dataclass(frozen=True)
class Part:
    """One tensor of the grown checkpoint.

    Attributes:
      name: its name there.
      stack: the stack of the original checkpoint that it extends.
      numbers: the original's numbers, layer first: the tensor kept, or the one below the gap; () outside the layers. Of
        a computed tensor of a matched expert its role in the place of its number (`growth.experts`).
      new: whether it belongs to a new layer.
      made: "copy" of the tensor in `sources`, their "mean", "zero", or "computed" from the whole stack.
      sources: names of the original tensors that a copy or a mean reads.
      weights: of the sources, 1 in all.
      scale: factor on what a new layer adds to the residual stream by it.
      loudness: of what half of its layer it decides how loud it is; None of others, and of old layers' tensors.
      resize: to what sizes, where it does not keep those of its stack.
    """

    name: str
    stack: Stack
    numbers: tuple[int, ...]
    new: bool = False
    made: Literal["copy", "mean", "zero", "computed"] = "copy"
    sources: tuple[str, ...] = ()
    weights: tuple[float, ...] = (1.0,)
    scale: float = 1.0
    loudness: Loudness | None = None
    resize: Resize | None = None

    @property
    def spec(self) -> TensorSpec:
        """Its shape and dtype."""
        return self.stack.spec if self.resize is None else self.resize.spec(self.stack.spec)

    def scaled(self, tensor: np.ndarray, factor: float = 1.0) -> np.ndarray:
        """The tensor so loud as it is to be, and `factor` times that."""
        factor *= self.scale
        return tensor if self.loudness is None or factor == 1 else self.loudness.scaled(tensor, factor)


def write_recipe(
    checkpoint: Checkpoint,
    plans: Mapping[str, Plan],
    method: Method,
    norm_source: NormSource,
    scale: float,
    orders: Orders | None = None,
) -> list[Part]:
    """All tensors of the output, in the order in which the originals lie in their files (copies read sequentially).

    `plans` are those of the stacks of layers, by what their tensors' names begin with. `scale` multiplies what new
    layers write into the residual stream. With `orders` experts are matched: what a new layer has of them is numbered
    as in the layer below.
    """
    model = description(checkpoint.config)
    places = {stack_name: (stack, numbers) for stack in checkpoint.stacks for stack_name, numbers in named(stack)}
    least = method.start.least_layers
    slots_of: dict[tuple[str, int], list[int]] = {}
    t: dict[tuple[str, int], float] = {}
    for prefix, plan in plans.items():
        for position, slot in enumerate(plan.slots):
            slots_of.setdefault((prefix, slot.layer), []).append(position)
        t |= {(prefix, new): t for new, t in zip(plan.new_layers, fractions(plan.gaps), strict=True)}
    experts = expert_count(checkpoint)
    align = isinstance(method.start, Aligned) and norm_source == "mean"
    parts = []
    for entry in sorted(checkpoint.entries.values(), key=lambda e: (e.file, e.start)):
        stack, numbers = places[entry.name]
        if stack.prefix not in plans:
            parts.append(Part(entry.name, stack, numbers, sources=(entry.name,)))
            continue
        (layer, *inner), slots = numbers, plans[stack.prefix].slots
        # A layer whose projections are zero is silent, whatever a norm behind them holds.
        loudness = loudness_of(stack.template.removeprefix(f"{stack.prefix}*."), model) if scale else None
        factor = 1.0 if loudness is None else scale
        for position in slots_of[stack.prefix, layer]:
            name = stack.name(position, *inner)
            if not slots[position].new:
                parts.append(Part(name, stack, numbers, sources=(entry.name,)))
            elif is_shared(stack):
                continue
            elif scale == 0 and writes_residual(stack.template):
                parts.append(Part(name, stack, numbers, True, "zero"))
            elif not method.start.computed:
                parts.append(Part(name, stack, numbers, True, "copy", (entry.name,), scale=factor, loudness=loudness))
            elif (by_expert := stack_orders(stack, orders, model)) is not None:
                check_neighbours(checkpoint, stack, layer, least)
                role = [by_expert[layer - stack.starts[0]].index(expert) for expert in inner]
                parts.append(Part(name, stack, (layer, *role), True, "computed", scale=factor, loudness=loudness))
            elif is_matrix(stack, experts) or (align and is_aligned_vector(checkpoint, stack, experts)):
                check_neighbours(checkpoint, stack, layer, least)
                parts.append(Part(name, stack, numbers, True, "computed", scale=factor, loudness=loudness))
            else:
                # With experts matched, what has an entry for each goes by the numbers of the layer below.
                source = "previous" if orders is not None and stack.spec.shape == (experts,) else norm_source
                made, sources, weights = norm_sources(stack, numbers, source, t[stack.prefix, position])
                parts.append(Part(name, stack, numbers, True, made, sources, weights, factor, loudness))
    return parts


def named(stack: Stack) -> Iterator[tuple[str, tuple[int, ...]]]:
    return zip(stack.names(), stack.numbers(), strict=True)


def norm_sources(
    stack: Stack, numbers: tuple[int, ...], norm_source: NormSource, t: float
) -> tuple[Literal["copy", "mean"], tuple[str, ...], tuple[float, ...]]:
    """What a new layer's norm weight, bias, router or buffer is made of, and how much of each.

    The public LESA code takes layer 0's. A mean is as far between the neighbours, t, as the matrices of an average.
    """
    layer, *inner = numbers
    above = layer + 1 if stack.covers(layer + 1) else layer
    buffer = stack.spec.dtype not in FLOATS  # such as gpt2's causal mask
    if norm_source == "mean" and above != layer and not buffer:
        return "mean", (stack.name(layer, *inner), stack.name(above, *inner)), (1 - t, t)
    source = {"first": stack.starts[0], "previous": layer, "next": above, "mean": layer}[norm_source]
    return "copy", (stack.name(layer if buffer else source, *inner),), (1.0,)


def is_matrix(stack: Stack, experts: int | None) -> bool:
    """Whether an initialiser computes this stack: floating-point matrices [out, in] or packed experts [experts, a, b].

    Name and shape must both say so: a convolution's kernel and a state space's parameters are no matrices, whatever
    their rank. Routers [experts, hidden] are copied: their rows mean nothing without the experts that they were trained
    with.
    """
    shape = stack.spec.shape
    if stack.spec.dtype not in FLOATS or not is_linear(stack.template):
        return False
    by_expert = experts is not None and shape[:1] == (experts,)
    router = by_expert and not ROUTERS.isdisjoint(stack.template.split("."))
    return (len(shape) == 3 and by_expert) or (len(shape) == 2 and not router)


def not_predicted(parts: Iterable[Part]) -> tuple[str, ...]:
    """The kinds of tensors of two and more dimensions that new layers take over while their matrices are computed."""
    parts = list(parts)
    if not any(part.made == "computed" for part in parts):
        return ()
    taken = [part.stack for part in parts if part.new and part.made in ("copy", "mean")]
    return tuple(
        sorted({kind_name(stack) for stack in taken if len(stack.spec.shape) > 1 and stack.spec.dtype in FLOATS})
    )


def is_aligned_vector(checkpoint: Checkpoint, stack: Stack, experts: int | None) -> bool:
    """Whether this is a bias or a norm weight whose entries are neurons of matrices that an initialiser aligns."""
    vector = stack.spec.dtype in FLOATS and len(stack.spec.shape) == 1
    beside = stacks_beside(checkpoint, stack).values() if vector else ()
    return bool(beside) and all(is_matrix(other, experts) for other in beside)


def check_neighbours(checkpoint: Checkpoint, stack: Stack, layer: int, least_layers: int) -> None:
    """Refuses a gap between layers of different shapes to a method that computes; and one at the edge of a run of like
    layers, or in a short one, to a method that learns from such a run."""
    edge = not stack.covers(layer + 1)
    unequal = edge and any(other.template == stack.template and other.covers(layer + 1) for other in checkpoint.stacks)
    if unequal or (least_layers > 1 and (edge or stack.sizes[0] < least_layers)):
        last = stack.starts[0] + stack.sizes[0] - 1
        needs = "the method computes from both neighbours where these are alike"
        if least_layers > 1:
            needs = f"LESA predicts from both neighbours in a run of {least_layers} or more like layers"
        raise InputError(
            f"gap {layer}: {needs}, but {stack.template} has one shape in layers {stack.starts[0]}-{last} only; choose "
            "--gaps in a longer run, or another method (copies fit everywhere: llama_pro, duplicate)"
        )
