"""The families whose linear layers are transformers' Conv1D, which stores [in, out]."""

from lesa_jax.families.family import Family

CONV1D = frozenset({"c_attn", "c_proj", "c_fc"})

GPT2 = Family("gpt2", transposed=CONV1D)
OPENAI_GPT = Family("openai-gpt", transposed=CONV1D, post_norm=True)
