"""Which rows of a fused matrix are which: found out from what transformers computes with them."""

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as hf

from lesa_jax.checkpoint.names import parse
from lesa_jax.checkpoint.reader import open_checkpoint
from lesa_jax.families.fused import LAYOUTS, Rows, fused_rows
from lesa_jax.families.roles import RESIDUAL_WRITERS, is_transposed
from tests.support.every_type import save_type
from tests.support.growth import TOKENS

# Of these the code is not in transformers, but lies beside the checkpoints.
REMOTE = {"baichuan", "internlm2", "qwen"}
CASES = [
    *(("falcon", {"alibi": alibi}) for alibi in (True, False)),
    *(("falcon", {"alibi": alibi, "multi_query": False, "num_kv_heads": 4}) for alibi in (True, False)),
    *(("falcon", {"new_decoder_architecture": True, "num_kv_heads": heads, "bias": True}) for heads in (2, 4)),
    *((name, {}) for name in ("glm", "gpt2", "gpt_neox", "phi3")),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}),  # no forward pass for it
    ("gpt_bigcode", {"multi_query": False}),
    ("persimmon", {"qk_layernorm": False}),  # a norm would undo the scale but for its eps
    *((name, {}) for name in sorted(LAYOUTS.keys() - REMOTE - {"persimmon"})),
]


@pytest.mark.parametrize(("model_type", "entries"), CASES)
def test_what_belongs_to_a_part_can_be_scaled_and_undone_elsewhere(tmp_path, model_type, entries):
    """Queries doubled and keys halved, values or up doubled and halved behind: powers of two, so to the last bit."""
    folder = save_type(model_type, tmp_path / "model", **entries)
    model = hf.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    before, found = logits(model), set()
    for name, rows in fused_tensors(folder).items():
        for part in rows:
            part.of(tensor(model, folder, name))[...] *= {"key": 0.5, "gate": 1.0}.get(part.name, 2.0)
            found.add(part.name)
    changed = logits(model)
    for name in fused_tensors(folder):
        if name.endswith(".weight"):
            tensor(model, folder, reader_of(name, folder))[...] *= 0.5
    assert found, "nothing was known to be fused"
    torch.testing.assert_close(logits(model), before, atol=1e-5, rtol=1e-5)
    assert (changed - before).abs().max() > 1e-3  # else the rows of values or up might be any


def logits(model: hf.PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor(TOKENS)).logits


def fused_tensors(folder: Path) -> dict[str, tuple[Rows, ...]]:
    """The parts of each fused weight and bias of a checkpoint."""
    checkpoint = open_checkpoint(folder)
    stacks = [stack for stack in checkpoint.stacks if len(stack.spec.shape) < 3]
    rows = {s: s.spec.shape[1 if is_transposed(checkpoint, s) else 0] for s in stacks}
    parts = {stack: fused_rows(checkpoint.config, stack.template, rows[stack]) for stack in stacks}
    return {name: found for stack, found in parts.items() for name in stack.names() if found}


def tensor(model: hf.PreTrainedModel, folder: Path, name: str) -> np.ndarray:
    """The model's own numbers, as [out, in]."""
    checkpoint, weights = open_checkpoint(folder), model.state_dict()
    known = weights[name if name in weights else f"{model.base_model_prefix}.{name}"].numpy()
    stack = next(stack for stack in checkpoint.stacks if stack.template == parse(name)[0])
    return known.T if is_transposed(checkpoint, stack) else known


def reader_of(name: str, folder: Path) -> str:
    """The weight that reads what this one's last part made: the last projection of the same block."""
    block = name.removesuffix(".weight").rpartition(".")[0]
    outputs = [f"{block}.{module}.weight" for module in RESIDUAL_WRITERS]
    (found,) = open_checkpoint(folder).entries.keys() & set(outputs)
    return found


def layout(config: dict, template: str, total: int) -> str:
    """Which part each row belongs to, by its first letter."""
    letters = np.full(total, "?")
    for rows in fused_rows(config, template, total):
        rows.of(letters)[...] = rows.name[0]
    return "".join(letters)


def test_layouts_of_code_that_lies_beside_checkpoints():
    grouped = {"model_type": "internlm2", "num_attention_heads": 4, "num_key_value_heads": 2}
    assert layout(grouped, "model.layers.*.attention.wqkv.weight", 16) == "qqqqkkvv" * 2
    assert layout({"model_type": "qwen"}, "transformer.h.*.attn.c_attn.bias", 6) == "qqkkvv"
    assert layout({"model_type": "baichuan"}, "model.layers.*.self_attn.W_pack.weight", 6) == "qqkkvv"


@pytest.mark.parametrize(
    ("config", "template", "total"),
    [
        ({"model_type": "llama"}, "model.layers.*.self_attn.qkv_proj.weight", 6),  # not a Llama's
        ({"model_type": "qwen"}, "transformer.h.*.attn.c_proj.weight", 6),
        ({"model_type": "qwen"}, "transformer.h.*.attn.c_attn.lora_A", 6),
        ({"model_type": "qwen"}, "transformer.h.*.attn.c_attn.weight", 7),
        ({"model_type": "bloom"}, "h.*.self_attention.query_key_value.weight", 6),  # of how many heads?
        ({"model_type": "mpt", "attn_config": {"attn_type": "multiquery_attention"}}, "blocks.*.attn.Wqkv.weight", 6),
    ],
)
def test_what_is_not_known_stays_whole(config, template, total):
    assert fused_rows(config, template, total) == ()
