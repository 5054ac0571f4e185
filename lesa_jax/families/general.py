"""The families that the general rules of `roles` and `fields` serve: they grow, and have no forward pass here."""

from lesa_jax.families.family import Family

MIXTRAL = Family("mixtral", "Mixtral")
QWEN3_MOE = Family("qwen3_moe", "Qwen 3, mixtures of experts")
