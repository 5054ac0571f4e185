"""Matrices that a model stores as one: queries, keys and values, or gate and up. Which rows are whose.

Of models with a forward pass the description says it (`families.model`); of some others the table below does, as
their own code has it. What is not known here stays whole.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np

from lesa_jax.base.errors import InputError
from lesa_jax.families.entries import flag, integer, mapping
from lesa_jax.families.gpt2 import PLAIN as PLAIN_GPT2
from lesa_jax.families.model import ModelConfig
from lesa_jax.families.table import description


@dataclass(frozen=True)
class Rows:
    """The rows of a fused matrix that are one of its parts, such as the queries: some of each group of rows.

    Attributes:
      name: of the part, for reports.
      groups: how many groups of like rows the matrix consists of.
      start, stop: the part's rows in a group.
    """

    name: str
    groups: int
    start: int
    stop: int

    @property
    def count(self) -> int:
        """How many rows they are in all."""
        return self.groups * (self.stop - self.start)

    def of(self, fused: np.ndarray) -> np.ndarray:
        """The part [groups, rows, ...] of a matrix [out, in] or of a vector, no copy."""
        return fused.reshape(self.groups, -1, *fused.shape[1:])[:, self.start : self.stop]

    def firsts(self, total: int) -> range:
        """The part's first row in each group of a matrix of so many rows."""
        return range(self.start, total, total // self.groups)


@dataclass(frozen=True)
class Layout:
    """How parts lie in a fused matrix: `groups` times, one after the other, each so many times as high as a unit."""

    groups: int
    heights: tuple[tuple[str, int], ...]

    def rows(self, total: int) -> tuple[Rows, ...]:
        """Each part's rows of so many; none if they do not come out even, so that the matrix cannot be this one."""
        unit, rest = divmod(total, self.groups * sum(height for _, height in self.heights))
        stops = accumulate(height * unit for _, height in self.heights)
        found = (
            Rows(name, self.groups, stop - height * unit, stop)
            for (name, height), stop in zip(self.heights, stops, strict=True)
        )
        return () if rest else tuple(found)


def attention(groups: int = 1, queries: int = 1, keys: int = 1) -> Layout:
    """Of so many groups of heads, each its queries' heads, its keys' and as many values'."""
    return Layout(groups, (("query", queries), ("key", keys), ("value", keys)))


GATE_UP = Layout(1, (("gate", 1), ("up", 1)))


def count_heads(config: Mapping[str, Any]) -> int:
    return integer(config, next((key for key in ("num_attention_heads", "n_head") if key in config), "n_heads"))


def head_by_head(config: Mapping[str, Any]) -> Layout:
    return attention(count_heads(config))


def gpt_bigcode(config: Mapping[str, Any]) -> Layout:
    """All queries, one key and one value, unless every head has its own."""
    return attention(1, count_heads(config)) if flag(config, "multi_query", True) else head_by_head(config)


def internlm2(config: Mapping[str, Any]) -> Layout:
    groups = integer(config, "num_key_value_heads")
    return attention(groups, count_heads(config) // groups)


def codegen(config: Mapping[str, Any]) -> Layout:
    """In four groups, for the four cores that it was trained on, values before keys."""
    return Layout(4, (("query", 1), ("value", 1), ("key", 1)))


def mpt(config: Mapping[str, Any]) -> Layout | None:
    usual = mapping(config, "attn_config").get("attn_type", "multihead_attention") == "multihead_attention"
    return attention() if usual else None


# Of types without a forward pass here: how the linear layer of a name lies.
LAYOUTS: Mapping[str, tuple[str, Callable[[Mapping[str, Any]], Layout | None]]] = {
    "baichuan": ("W_pack", lambda config: attention()),
    "bloom": ("query_key_value", head_by_head),
    "codegen": ("qkv_proj", codegen),
    "gpt_bigcode": ("c_attn", gpt_bigcode),
    "granitemoehybrid": ("input_linear", lambda config: GATE_UP),
    "granitemoeshared": ("input_linear", lambda config: GATE_UP),
    "internlm2": ("wqkv", internlm2),
    "mpt": ("Wqkv", mpt),
    "openai-gpt": ("c_attn", lambda config: attention()),
    "persimmon": ("query_key_value", head_by_head),
    "qwen": ("c_attn", lambda config: attention()),
}
# Entries that keep some models of a family from running here, and have no say in how their matrices lie.
RUNNING: Mapping[str, Mapping[str, Any]] = {"falcon": {"alibi": False}, "gpt2": PLAIN_GPT2}


def fused_rows(config: Mapping[str, Any], template: str, total: int) -> tuple[Rows, ...]:
    """The parts of a fused weight, or of its bias, in the order in which they lie; none of any other tensor.

    Args:
      config: `config.json`.
      template: of the tensor's stack (`checkpoint.names`).
      total: the number of its rows.
    """
    model_type = str(config.get("model_type"))
    linear, _, leaf = template.rpartition(".")
    if leaf not in ("weight", "bias"):
        return ()
    model = description({**config, **RUNNING.get(model_type, {})})
    if model is not None:
        layout = described(model, linear)
    else:
        name, layout_of = LAYOUTS.get(model_type, ("", None))
        layout = told(config, layout_of) if layout_of is not None and linear.endswith(f".{name}") else None
    return () if layout is None else layout.rows(total)


def described(model: ModelConfig, linear: str) -> Layout | None:
    """How a model with a forward pass lays out the linear layer of this name."""
    name = linear.partition(".*.")[2]
    if name == model.names.qkv:  # in layers of any size as many queries share a key
        return attention(model.qkv_groups, model.num_heads // model.num_kv_heads)
    return GATE_UP if name == model.names.gate_up else None


def told(config: Mapping[str, Any], layout_of: Callable[[Mapping[str, Any]], Layout | None]) -> Layout | None:
    """What the table says; nothing where config.json lacks what it depends on."""
    try:
        return layout_of(config)
    except InputError:
        return None
