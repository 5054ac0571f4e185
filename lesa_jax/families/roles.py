"""Which tensors write into the residual stream, so that zeroing them makes a layer the identity (LLaMA Pro)."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.names import Stack
from lesa_jax.checkpoint.reader import Checkpoint
from lesa_jax.families.fields import text_section

# The last projection of attention, of a feed-forward network, of an expert or of a mixer, as the families call it.
# Biases count: gpt2's c_proj.bias would still move the stream. A part is compared whole: dense is not dense_h_to_4h.
ATTENTION_OUTPUTS = frozenset({"o_proj", "out_proj", "c_proj", "dense", "wo"})
FEED_FORWARD_OUTPUTS = frozenset({"down_proj", "down_proj_bias", "c_proj", "dense_4h_to_h", "fc2", "w2", "wo"})
RESIDUAL_WRITERS = ATTENTION_OUTPUTS | FEED_FORWARD_OUTPUTS
POST_NORM_TYPES = frozenset({"openai-gpt", "bert", "roberta", "electra", "biogpt", "xlnet"})


def writes_residual(template: str) -> bool:
    """Whether a tensor of this name is the weight or the bias of a projection into the residual stream."""
    return not RESIDUAL_WRITERS.isdisjoint(template.split("."))


def check_silenceable(config: Mapping[str, Any], stacks: Iterable[Stack], prefix: str) -> None:
    """Refuses models in which zeroed output projections would not make a layer the identity.

    Raises:
      InputError: a post-norm architecture, or output projections that go by names unknown here.
    """
    model_type = str(config.get("model_type"))
    post_norm = model_type in POST_NORM_TYPES or config.get("do_layer_norm_before") is False
    if post_norm or config.get("apply_residual_connection_post_layernorm"):
        raise InputError(
            f"{model_type} normalises the residual stream itself, so no silenced layer is the identity; "
            "use --method lesa or duplicate"
        )
    parts = [set(stack.template.split(".")) for stack in stacks if stack.prefix == prefix]
    for branch, outputs in (("attention", ATTENTION_OUTPUTS), ("feed-forward", FEED_FORWARD_OUTPUTS)):
        if not any(outputs & names for names in parts):
            raise InputError(
                f"{model_type}: no tensor is known as the {branch} output ({', '.join(sorted(outputs))}), "
                "so a new layer cannot be silenced; use --method lesa or duplicate"
            )


# Linear layers that store [in, out] (transformers' Conv1D), by model type; everything else stores [out, in].
TRANSPOSED = {"gpt2": ("c_attn", "c_proj", "c_fc"), "openai-gpt": ("c_attn", "c_proj", "c_fc")}
ROUTERS = frozenset({"gate", "router", "wg"})


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


NORM = re.compile(r"(^|[._])(layer)?norm\.")
