"""OpenELM in torch, as its paper and its checkpoints define it: transformers has none, and is told of this one.

Queries, keys and values are rows of one matrix, head by head; gate and up of another. Norms divide by the root of the
mean square. Positions turn the two halves of a head against each other.
"""

from typing import Any, ClassVar

import torch
import transformers as hf
from torch import nn
from transformers.modeling_outputs import CausalLMOutput

EPS = 1e-6


class OpenELMConfig(hf.PretrainedConfig):
    """Its entries under the layout's own names."""

    model_type = "openelm"
    attribute_map: ClassVar = {
        "num_hidden_layers": "num_transformer_layers",
        "hidden_size": "model_dim",
        "max_position_embeddings": "max_context_length",
        "tie_word_embeddings": "share_input_output_layers",
    }

    def __init__(self, **entries: Any) -> None:
        for name, value in {"qk_norm": "head", "rope_freq_constant": 10000, "ffn_with_glu": True, **entries}.items():
            setattr(self, name, value)
        super().__init__(**{name: entries[name] for name in entries if name.endswith("token_id")})


def width_of(config: Any, layer: int) -> int:
    """The published rule: to the nearest multiple, but never a tenth less than wished."""
    wished, unit = config.ffn_multipliers[layer] * config.model_dim, config.ffn_dim_divisor
    nearest = max(unit, int(wished + unit / 2) // unit * unit)
    return nearest if nearest >= 0.9 * wished else nearest + unit


class Scaled(nn.Module):
    """A root-mean-square norm over the last axis."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = x.float()
        return (wide / (wide.pow(2).mean(-1, keepdim=True) + EPS).sqrt()).to(x.dtype) * self.weight


class Attention(nn.Module):
    def __init__(self, config: Any, layer: int) -> None:
        super().__init__()
        self.heads, self.shared, self.width = (
            config.num_query_heads[layer],
            config.num_kv_heads[layer],
            config.head_dim,
        )
        self.theta, self.over = config.rope_freq_constant, config.qk_norm
        rows = (self.heads + 2 * self.shared) * self.width
        self.qkv_proj = nn.Linear(config.model_dim, rows, bias=False)
        self.out_proj = nn.Linear(self.heads * self.width, config.model_dim, bias=False)
        if config.normalize_qk_projections:
            each = (self.width, self.width)
            queries, keys = each if self.over == "head" else (self.heads * self.width, self.shared * self.width)
            self.q_norm, self.k_norm = Scaled(queries), Scaled(keys)

    def normed(self, x: torch.Tensor, name: str) -> torch.Tensor:
        """x [batch, tokens, heads, width] by a norm of queries or of keys."""
        if not hasattr(self, name):
            return x
        norm = getattr(self, name)
        return norm(x) if self.over == "head" else norm(x.flatten(2)).reshape(x.shape)

    def turned(self, x: torch.Tensor) -> torch.Tensor:
        """As complex numbers, the first half of a head real and the second imaginary, times exp(i position / wave)."""
        half = self.width // 2
        speeds = self.theta ** (-torch.arange(half, dtype=torch.float64) / half)
        angles = torch.arange(x.shape[1], dtype=torch.float64)[:, None] * speeds
        number = torch.complex(x[..., :half].double(), x[..., half:].double()) * torch.exp(1j * angles)[None, :, None]
        return torch.cat([number.real, number.imag], dim=-1).to(x.dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, _ = x.shape
        rows = self.qkv_proj(x).reshape(batch, tokens, -1, self.width)
        q, k, v = rows.split([self.heads, self.shared, self.shared], dim=2)
        q, k = self.turned(self.normed(q, "q_norm")), self.turned(self.normed(k, "k_norm"))
        k, v = (each[:, :, [head * self.shared // self.heads for head in range(self.heads)]] for each in (k, v))
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / self.width**0.5
        later = torch.ones(tokens, tokens).triu(1).bool()
        shares = scores.masked_fill(later, -torch.inf).float().softmax(-1).to(x.dtype)
        return self.out_proj(torch.einsum("bhqk,bkhd->bqhd", shares, v).flatten(2))


class FeedForward(nn.Module):
    def __init__(self, config: Any, layer: int) -> None:
        super().__init__()
        width, self.gated = width_of(config, layer), config.ffn_with_glu
        self.proj_1 = nn.Linear(config.model_dim, width * (2 if self.gated else 1), bias=False)
        self.proj_2 = nn.Linear(width, config.model_dim, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = self.proj_1(x)
        if not self.gated:
            return self.proj_2(inner * inner.sigmoid())
        gate, up = inner[..., : inner.shape[-1] // 2], inner[..., inner.shape[-1] // 2 :]
        return self.proj_2(gate * gate.sigmoid() * up)


class Layer(nn.Module):
    def __init__(self, config: Any, layer: int) -> None:
        super().__init__()
        self.attn, self.ffn = Attention(config, layer), FeedForward(config, layer)
        self.attn_norm, self.ffn_norm = Scaled(config.model_dim), Scaled(config.model_dim)
        self.share = 1.0 if getattr(config, "norm_scales", None) is None else config.norm_scales[layer]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.share * self.attn_norm(x))
        return x + self.ffn(self.share * self.ffn_norm(x))


class Transformer(nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        self.token_embeddings = nn.Embedding(config.vocab_size, config.model_dim)
        self.layers = nn.ModuleList(Layer(config, layer) for layer in range(config.num_transformer_layers))
        self.norm = Scaled(config.model_dim)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.token_embeddings(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)


class OpenELMForCausalLM(hf.PreTrainedModel):
    config_class = OpenELMConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.transformer = Transformer(config)
        if not config.share_input_output_layers:
            self.lm_head = nn.Linear(config.model_dim, config.vocab_size, bias=False)
        self.post_init()

    def forward(self, input_ids: torch.Tensor, **_: Any) -> CausalLMOutput:
        head = self.lm_head if hasattr(self, "lm_head") else self.transformer.token_embeddings
        logits = self.transformer(input_ids) @ head.weight.T
        return CausalLMOutput(logits=logits)  # pyright: ignore[reportArgumentType]


hf.AutoConfig.register("openelm", OpenELMConfig)
hf.AutoModelForCausalLM.register(OpenELMConfig, OpenELMForCausalLM)
