"""config.json in OpenELM's layout: sizes layer by layer, and what is damaged in them in one line."""

import pytest

from lesa_jax.base.errors import InputError
from lesa_jax.families.fused import fused_rows
from lesa_jax.families.model import ModelConfig, Sizes
from lesa_jax.models.config import read_config
from lesa_jax.planning.config import config_changes, grow_config, undo_changes
from lesa_jax.planning.placement import make_plan
from tests.support.tiny import OPENELM_LIKE

CONFIG = OPENELM_LIKE | {"model_type": "openelm"}
SIZES = (Sizes(2, 1, 32), Sizes(4, 2, 96), *[Sizes(6, 3, 48)] * 4)


def model(**changes) -> ModelConfig:
    return read_config(CONFIG | changes)


def test_each_layer_has_its_sizes_and_the_model_the_largest():
    found = model()
    assert found.sizes == SIZES
    assert (found.num_heads, found.num_kv_heads, found.intermediate_size) == (6, 3, 96)


def test_a_run_of_equal_layers_is_a_model_like_any_other():
    run = model().of_layers([2, 4])
    assert (run.num_layers, run.sizes, run.num_heads, run.intermediate_size) == (2, (), 6, 48)
    assert run == model(num_query_heads=[6] * 6, num_kv_heads=[3] * 6, ffn_multipliers=[1.5] * 6).of_layers([0, 1])
    assert model().like(1).sizes_of(5) == SIZES[1]
    assert model().of_layers([5, 0]).sizes == (SIZES[5], SIZES[0])
    assert model().like(3).of_layers([]) == run.of_layers([])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_query_heads": None}, "num_query_heads is None; expected a positive integer for each of 6 layers"),
        ({"num_query_heads": [2, 4, 6]}, "for each of 6 layers"),
        ({"num_kv_heads": [1, 2, 3, 3, 3, 0]}, "num_kv_heads is"),
        ({"num_kv_heads": [1, 2, 3, 3, 3, 4]}, "layer 5 has 6 query heads to 4 of keys"),
        ({"num_kv_heads": [1, 4, 3, 3, 3, 3]}, "layer 1 has 4 query heads to 4 of keys.*that of layer 0: 2 to 1"),
        ({"ffn_multipliers": [1.0] * 5}, "ffn_multipliers is"),
        ({"ffn_multipliers": [1.0] * 5 + [float("nan")]}, "ffn_multipliers is"),
        ({"ffn_multipliers": 2.0}, "ffn_multipliers is 2.0; expected a positive number for each of 6 layers"),
        ({"ffn_dim_divisor": 0}, "ffn_dim_divisor is 0"),
        ({"normalization_layer_name": "layer_norm"}, "normalization_layer_name is not implemented"),
        ({"qk_norm": "heads"}, "qk_norm is 'heads'; expected one of head, all"),
        ({"norm_scales": [1.0, 0.5]}, "norm_scales is .*for each of 6 layers"),
        ({"norm_scales": [1.0, 0.5, 0.5, 0.5, 0.5, "0.5"]}, "norm_scales is"),
        ({"head_dim": 7}, "heads are 7 wide"),
    ],
)
def test_what_is_damaged_is_named(changes, message):
    with pytest.raises(InputError, match=message) as caught:
        model(**changes)
    assert "\n" not in str(caught.value)


def test_fused_rows_are_each_layers_own():
    for heads, total in ((2, 32), (4, 64), (6, 96)):
        rows = fused_rows(CONFIG, "transformer.layers.*.attn.qkv_proj.weight", total)
        assert [(part.name, part.count) for part in rows] == [
            ("query", heads * 8),
            ("key", heads * 4),
            ("value", heads * 4),
        ]
    rows = fused_rows(CONFIG, "transformer.layers.*.ffn.proj_1.weight", 192)
    assert [(part.name, part.start, part.stop) for part in rows] == [("gate", 0, 96), ("up", 96, 192)]


def test_lists_grow_with_the_layers_and_shrink_again():
    plan = make_plan(6, "duplicate", gaps=[0, 3])  # 0 +0 1 2 3 +3 4 5
    order = [0, 0, 1, 2, 3, 3, 4, 5]
    for multipliers in ([0.5, 1.0, 1.5, 1.5, 1.5, 1.5], [0.5, 1.5], 1.0):
        config = CONFIG | {"qkv_multipliers": multipliers}
        grown = grow_config(config, plan)
        assert grown["num_transformer_layers"] == 8
        for key in ("num_query_heads", "num_kv_heads", "ffn_multipliers"):
            assert grown[key] == [CONFIG[key][layer] for layer in order]
        whole = [heads * 8 / 32 for heads in grown["num_query_heads"]]
        assert grown["qkv_multipliers"] == (1.0 if multipliers == 1.0 else whole)
        assert undo_changes(grown, config_changes(config, grown)) == config
        assert read_config(grown).sizes == tuple(SIZES[layer] for layer in order)
