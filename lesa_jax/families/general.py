"""The families that the general rules of `roles` and `fields` serve: they grow, and have no forward pass here."""

from lesa_jax.families.family import Family

FALCON = Family("falcon")
GEMMA2 = Family("gemma2")
GEMMA3 = Family("gemma3_text")
GPT_NEOX = Family("gpt_neox")
MIXTRAL = Family("mixtral")
OLMO3 = Family("olmo3")
OPT = Family("opt")
PHI = Family("phi")
QWEN3 = Family("qwen3")
QWEN3_MOE = Family("qwen3_moe")
SMOLLM3 = Family("smollm3")
