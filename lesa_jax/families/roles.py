"""What a tensor does, told from its name and its family.

Parts of a name are compared whole: `dense` is not `dense_h_to_4h`. A family that calls its output projections or its
routers by a name of its own adds it to the sets here, which serve unknown families too.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.names import Stack
from lesa_jax.checkpoint.reader import Checkpoint
from lesa_jax.families.depth import NEVER_SILENT, RESIDUAL_SCALES
from lesa_jax.families.fields import EXPERT_COUNTS, text_section
from lesa_jax.families.table import find_family

# The last projection of attention, of a feed-forward network, of an expert or of a mixer: they write into the residual
# stream, so that zeroing them makes a layer the identity (LLaMA Pro). Biases count: gpt2's c_proj.bias would still move
# the stream.
ATTENTION_OUTPUTS = frozenset({"o", "o_proj", "out_proj", "c_proj", "dense", "linear_out", "wo"})
FEED_FORWARD_OUTPUTS = frozenset(
    {"down_proj", "down_proj_bias", "c_proj", "dense_4h_to_h", "fc2", "fc_out", "output_linear", "proj_2", "w2", "wo"}
)
RESIDUAL_WRITERS = ATTENTION_OUTPUTS | FEED_FORWARD_OUTPUTS
# What chooses experts; its rows belong to them.
ROUTERS = frozenset({"gate", "router", "wg"})
# What the words of a linear layer's name are: `q_a_proj`, `dense_4h_to_h`, `Wqkv`, `w1`, `in_proj_qkvz`.
LINEAR = re.compile(
    r"attn|proj|projection|dense|linear|lin|lin[12]|fc|fc[12]|layer[12]?|qkv|query|key|value|receptance|output|intermediate|"
    r"gate|up|down|[qkvow]|w[123]|w(q|k|v|o|i|qkv)"
)
# Words by which it is none: convolutions, state spaces, norms, tables, and vectors that lie side by side.
NOT_LINEAR = re.compile(r"conv|conv\d+d|norm|layernorm|embed|embeddings?|bias|decay|mix|scale|weight|pos|position")
MASKS = ("bias", "masked_bias")
# Constants that old checkpoints store beside the weights: frequencies, and the causal masks of GPT-2 and GPT-NeoX.
BUFFERS = (".rotary_emb.inv_freq", *(f".{module}.{mask}" for module in ("attn", "attention") for mask in MASKS))
# What the first layer holds for all: a table of distances.
FIRST_LAYER = frozenset({"relative_attention_bias"})
# A table of distances between tokens of two texts, which the first T5 have and no version of transformers reads.
UNREAD = ".EncDecAttention.relative_attention_bias.weight"


def writes_residual(template: str) -> bool:
    """Whether a tensor of this name is the weight or the bias of a projection into the residual stream."""
    return not RESIDUAL_WRITERS.isdisjoint(template.split("."))


def check_silenceable(config: Mapping[str, Any], stacks: Iterable[Stack], prefix: str) -> None:
    """Refuses models in which zeroed output projections would not make a layer the identity.

    Raises:
      InputError: a post-norm architecture, or output projections that go by names unknown here.
    """
    family, stacks = find_family(config), list(stacks)
    if family.model_type in NEVER_SILENT:
        raise InputError(
            f"{family.model_type}: no silenced layer is the identity ({NEVER_SILENT[family.model_type]}); "
            "use --method lesa or duplicate"
        )
    for stack in stacks:
        if stack.prefix == prefix and not RESIDUAL_SCALES.isdisjoint(stack.template.split(".")):
            raise InputError(
                f"{family.model_type}: {stack.template} scales the residual stream, so no silenced layer is the "
                "identity; use --method lesa or duplicate"
            )
    post_norm = family.post_norm or config.get("do_layer_norm_before") is False
    if post_norm or config.get("apply_residual_connection_post_layernorm"):
        raise InputError(
            f"{family.model_type} normalises the residual stream itself, so no silenced layer is the identity; "
            "use --method lesa or duplicate"
        )
    layers = [stack for stack in stacks if stack.prefix == prefix]
    for branch, outputs in (("attention", ATTENTION_OUTPUTS), ("feed-forward", FEED_FORWARD_OUTPUTS)):
        without = numbers_of(layers) - numbers_of(s for s in layers if not outputs.isdisjoint(s.template.split(".")))
        if without:
            raise InputError(
                f"{family.model_type}: in layer {min(without)} no tensor is known as the {branch} output "
                f"({', '.join(sorted(outputs))}), so a new layer cannot be silenced; use --method lesa or duplicate"
            )


def numbers_of(stacks: Iterable[Stack]) -> set[int]:
    """The layers that have one of these tensors."""
    return {layer for stack in stacks for layer in range(stack.starts[0], stack.starts[0] + stack.sizes[0])}


def is_linear(template: str) -> bool:
    """Whether a tensor goes by the name of a linear layer's weight, an expert's or several packed ones among them."""
    *_, module, last = ["", *template.split(".")]
    words = (module if last == "weight" else last).lower().split("_")
    return any(LINEAR.fullmatch(word) for word in words) and not any(NOT_LINEAR.fullmatch(word) for word in words)


def expert_count(checkpoint: Checkpoint) -> int | None:
    """Experts of a layer; None for a model without."""
    section = text_section(checkpoint.config)
    for key in EXPERT_COUNTS:
        if isinstance(section.get(key), int):
            return section[key]
    return None


def is_transposed(checkpoint: Checkpoint, stack: Stack) -> bool:
    """Whether the matrices lie as [in, out] in the file."""
    linear = find_family(checkpoint.config).transposed
    return len(stack.spec.shape) == 2 and not linear.isdisjoint(stack.template.split("."))


def is_buffer(name: str) -> bool:
    """Whether a tensor is no weight but a constant that the forward pass computes by itself, or does not read."""
    return name.endswith((*BUFFERS, UNREAD))


def is_shared(stack: Stack) -> bool:
    """Whether a tensor of the first layer serves all layers, so that a copy of that layer has none."""
    first = (stack.starts[:1], stack.sizes[:1]) == ((0,), (1,))
    return first and not FIRST_LAYER.isdisjoint(stack.template.split("."))
