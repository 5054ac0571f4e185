"""What every tensor of the grown checkpoint is made of, tensor by tensor, before any weight is touched."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from lesa_jax.checkpoint import FLOATS, Checkpoint
from lesa_jax.errors import InputError
from lesa_jax.gate import writes_residual
from lesa_jax.hf_config import text_section
from lesa_jax.methods import Copy, Lesa, Method, NormSource
from lesa_jax.names import Stack
from lesa_jax.plan import Plan

# Linear layers that store [in, out] (transformers' Conv1D), by model type; everything else stores [out, in].
TRANSPOSED = {"gpt2": ("c_attn", "c_proj", "c_fc"), "openai-gpt": ("c_attn", "c_proj", "c_fc")}
ROUTERS = frozenset({"gate", "router", "wg"})


@dataclass(frozen=True)
class Part:
    """One tensor of the grown checkpoint.

    Attributes:
      name: its name there.
      stack: the stack of the original checkpoint that it extends.
      numbers: the original's numbers, layer first: the tensor kept, or the one below the gap; () outside the layers.
      new: whether it belongs to a new layer.
      made: "copy" of the tensor in `sources`, their "mean", "zero", or "computed" from the whole stack.
      sources: names of the original tensors that a copy or a mean reads.
      scale: factor on a new tensor's values.
    """

    name: str
    stack: Stack
    numbers: tuple[int, ...]
    new: bool = False
    made: Literal["copy", "mean", "zero", "computed"] = "copy"
    sources: tuple[str, ...] = ()
    scale: float = 1.0


def write_recipe(
    checkpoint: Checkpoint, prefix: str, plan: Plan, method: Method, norm_source: NormSource, scale: float
) -> list[Part]:
    """All tensors of the output, in the order in which the originals lie in their files (copies read sequentially).

    `scale` multiplies what new layers write into the residual stream.
    """
    places = {stack_name: (stack, numbers) for stack in checkpoint.stacks for stack_name, numbers in named(stack)}
    slots_of: dict[int, list[int]] = {}
    for position, slot in enumerate(plan.slots):
        slots_of.setdefault(slot.layer, []).append(position)
    experts = expert_count(checkpoint)
    parts = []
    for entry in sorted(checkpoint.entries.values(), key=lambda e: (e.file, e.start)):
        stack, numbers = places[entry.name]
        if stack.prefix != prefix:
            parts.append(Part(entry.name, stack, numbers, sources=(entry.name,)))
            continue
        layer, *inner = numbers
        for position in slots_of[layer]:
            name = stack.name(position, *inner)
            factor = scale if writes_residual(stack.template) else 1.0
            if not plan.slots[position].new:
                parts.append(Part(name, stack, numbers, sources=(entry.name,)))
            elif factor == 0:
                parts.append(Part(name, stack, numbers, True, "zero"))
            elif isinstance(method.initialiser, Copy):
                parts.append(Part(name, stack, numbers, True, "copy", (entry.name,), factor))
            elif is_matrix(stack, experts):
                if isinstance(method.initialiser, Lesa):
                    check_neighbours(stack, layer)
                parts.append(Part(name, stack, numbers, True, "computed", scale=factor))
            else:
                made, sources = norm_sources(stack, numbers, norm_source)
                parts.append(Part(name, stack, numbers, True, made, sources, factor))
    return parts


def named(stack: Stack) -> Iterator[tuple[str, tuple[int, ...]]]:
    return zip(stack.names(), stack.numbers(), strict=True)


def norm_sources(
    stack: Stack, numbers: tuple[int, ...], norm_source: NormSource
) -> tuple[Literal["copy", "mean"], tuple[str, ...]]:
    """What a new layer's norm weight, bias, router or buffer is made of. The public LESA code takes layer 0's."""
    layer, *inner = numbers
    above = layer + 1 if stack.covers(layer + 1) else layer
    layers = {"first": [stack.starts[0]], "previous": [layer], "next": [above], "mean": [layer, above]}[norm_source]
    if stack.kind.dtype not in FLOATS:
        layers = [layer]  # a buffer, such as gpt2's causal mask
    return "mean" if len(layers) > 1 else "copy", tuple(stack.name(source, *inner) for source in layers)


def is_matrix(stack: Stack, experts: int | None) -> bool:
    """Whether an initialiser computes this stack: floating-point matrices [out, in] or packed experts [experts, a, b].

    Routers [experts, hidden] are copied: their rows mean nothing without the experts that they were trained with.
    """
    parts = stack.template.split(".")
    router = experts is not None and stack.kind.shape[:1] == (experts,) and not ROUTERS.isdisjoint(parts)
    return stack.kind.dtype in FLOATS and len(stack.kind.shape) in (2, 3) and not router


def expert_count(checkpoint: Checkpoint) -> int | None:
    section = text_section(checkpoint.config)
    for key in ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"):
        if isinstance(section.get(key), int):
            return section[key]
    return None


def is_transposed(checkpoint: Checkpoint, stack: Stack) -> bool:
    """Whether the matrices lie as [in, out] in the file."""
    linear = TRANSPOSED.get(str(checkpoint.config.get("model_type")), ())
    return len(stack.kind.shape) == 2 and not set(linear).isdisjoint(stack.template.split("."))


def check_neighbours(stack: Stack, layer: int) -> None:
    if not stack.covers(layer + 1) or stack.sizes[0] < 3:
        last = stack.starts[0] + stack.sizes[0] - 1
        raise InputError(
            f"gap {layer}: LESA predicts from both neighbours in a run of 3 or more like layers, but {stack.template} "
            f"has one shape in layers {stack.starts[0]}-{last} only; choose --gaps in a longer run, or another method"
        )


# One kind of weight: the matrices of all layers in a stack, for a stack with more axes those of one expert.
WeightKind = tuple[Stack, tuple[int, ...]]
# Kinds of equal shape are predicted together while their weights stay below this many bytes of float32.
BATCH_BYTES = 1 << 28


def weight_kinds(computed: list[Part]) -> list[list[WeightKind]]:
    """The kinds that computed parts belong to, in batches that share shape and layers, and so a compiled program."""
    groups: dict[tuple[object, ...], list[WeightKind]] = {}
    for stack, inner in dict.fromkeys((part.stack, part.numbers[1:]) for part in computed):
        groups.setdefault((stack.kind, stack.starts[0], stack.sizes[0]), []).append((stack, inner))
    batches = []
    for group in groups.values():
        size = max(1, BATCH_BYTES // kind_bytes(group[0][0]))
        batches += [group[i : i + size] for i in range(0, len(group), size)]
    return batches


def kind_name(stack: Stack) -> str:
    """How a kind is called in reports: `model.layers.*.mlp.up_proj.weight` -> `mlp.up_proj`."""
    return stack.template.removeprefix(stack.prefix + "*.").removesuffix(".weight")


def kind_pages(stack: Stack) -> int:
    """Matrices in one tensor: 1, or the number of packed experts."""
    return stack.kind.shape[0] if len(stack.kind.shape) == 3 else 1


def kind_bytes(stack: Stack) -> int:
    """Bytes of one kind's matrices of all layers as float32."""
    return 4 * stack.sizes[0] * math.prod(stack.kind.shape)


def computation_memory(computed: list[Part]) -> int:
    """Bytes that computing new matrices needs at its peak besides the program: the largest batch of kinds.

    Weights and V as float32 for every kind of the batch; Gram matrix, eigenvectors and their workspace for one.
    """
    peak = 0
    for batch in weight_kinds(computed):
        stack = batch[0][0]
        out = stack.kind.shape[-2]
        peak = max(peak, len(batch) * (2 * kind_bytes(stack)) + 5 * 4 * out * out)
    return peak
