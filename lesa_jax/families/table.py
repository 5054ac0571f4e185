"""The families that are known and tested, and what is assumed of any other."""

from collections.abc import Mapping
from typing import Any

from lesa_jax.families import general, gpt2, llama
from lesa_jax.families.family import Family

# For each of them the tests demand a small configuration, and that it is grown, and run if it has a forward pass.
FAMILIES: Mapping[str, Family] = {
    family.model_type: family
    for family in (
        llama.LLAMA,
        llama.MISTRAL,
        llama.QWEN2,
        gpt2.GPT2,
        gpt2.OPENAI_GPT,
        general.FALCON,
        general.GEMMA2,
        general.GEMMA3,
        general.GPT_NEOX,
        general.MIXTRAL,
        general.OLMO3,
        general.OPT,
        general.PHI,
        general.QWEN3,
        general.QWEN3_MOE,
        general.SMOLLM3,
    )
}
# Of these nothing is known but that a silenced layer of theirs is no identity.
POST_NORM_TYPES = frozenset({"bert", "roberta", "electra", "biogpt", "xlnet"})


def find_family(config: Mapping[str, Any]) -> Family:
    """The family of a `config.json`; for an unknown one what the general rules assume: it grows, and does not run."""
    model_type = str(config.get("model_type"))
    return FAMILIES.get(model_type, Family(model_type, post_norm=model_type in POST_NORM_TYPES))
