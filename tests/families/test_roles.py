"""What a tensor does, told from its name."""

import pytest

from lesa_jax.families.roles import is_linear

LINEAR = [
    "h.*.attn.c_attn.weight", "layers.*.self_attn.q_a_proj.weight", "layers.*.mlp.experts.gate_up_proj",
    "layers.*.mlp.experts.*.w1.weight", "h.*.mlp.dense_4h_to_h.weight", "layers.*.attn.Wqkv.weight",
    "layers.*.mixer.in_proj.weight", "decoder.layers.*.fc1.weight", "h.*.attention.query_key_value.weight",
    "layers.*.block_sparse_moe.input_linear.weight",
]  # fmt: skip
OTHERS = [
    "layers.*.mamba.conv1d.weight", "layers.*.mixer.A_log", "layers.*.mamba.D", "layers.*.mamba.dt_bias",
    "layers.*.temporal_block.conv_1d.weight", "layers.*.temporal_block.rg_lru.input_gate_weight",
    "blocks.*.attention.time_decay", "blocks.*.attention.time_mix_key", "layers.*.mlp.experts.down_proj_bias",
    "layers.*.self_attn.q_norm.weight", "layers.*.self_attn.relative_pos_embeddings.weight",
    "layers.*.gate.e_score_correction_bias", "layers.*.linear_attn.slope_rate",
]  # fmt: skip


@pytest.mark.parametrize("template", LINEAR)
def test_linear_layers_are_known_by_name(template):
    assert is_linear(template)


@pytest.mark.parametrize("template", OTHERS)
def test_convolutions_state_spaces_norms_and_biases_are_none(template):
    assert not is_linear(template)
