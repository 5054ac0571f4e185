"""The families that are known and tested, and what is assumed of any other."""

from collections.abc import Mapping
from typing import Any

from lesa_jax.base.errors import InputError
from lesa_jax.families import bart, deepseek, gemma, gpt2, llama, mixtures, olmo, openelm, others, phi, t5
from lesa_jax.families.family import Family
from lesa_jax.families.model import ModelConfig

# For each of them the tests demand a small configuration, and that it is grown, and run if it has a forward pass.
FAMILIES: Mapping[str, Family] = {
    family.model_type: family
    for family in (
        llama.LLAMA,
        llama.MISTRAL,
        llama.MINISTRAL,
        llama.QWEN2,
        llama.QWEN3,
        llama.SMOLLM3,
        llama.GRANITE,
        llama.ARCEE,
        llama.SEED_OSS,
        gemma.GEMMA,
        gemma.GEMMA2,
        gemma.GEMMA3,
        olmo.OLMO,
        olmo.OLMO2,
        olmo.OLMO3,
        openelm.OPENELM,
        phi.PHI,
        phi.PHI3,
        others.COHERE,
        others.COHERE2,
        others.GLM,
        others.GLM4,
        others.STABLELM,
        others.STARCODER2,
        others.FALCON,
        others.GPT_NEOX,
        gpt2.GPT2,
        gpt2.OPT,
        gpt2.OPENAI_GPT,
        mixtures.MIXTRAL,
        mixtures.QWEN2_MOE,
        mixtures.QWEN3_MOE,
        mixtures.OLMOE,
        mixtures.GRANITE_MOE,
        deepseek.DEEPSEEK_V2,
        deepseek.DEEPSEEK_V3,
        t5.T5,
        t5.MT5,
        bart.BART,
    )
}
# Of these nothing is known but that a silenced layer of theirs is no identity.
POST_NORM_TYPES = frozenset({"bert", "roberta", "electra", "biogpt", "xlnet"})


def description(config: Mapping[str, Any]) -> ModelConfig | None:
    """What a forward pass needs to know of a model; None where there is no forward pass for it."""
    read = find_family(config).read
    try:
        return None if read is None else read(config)
    except InputError:
        return None


def find_family(config: Mapping[str, Any]) -> Family:
    """The family of a `config.json`; for an unknown one what the general rules assume: it grows, and does not run."""
    model_type = str(config.get("model_type"))
    return FAMILIES.get(model_type) or Family(model_type, post_norm=model_type in POST_NORM_TYPES)
