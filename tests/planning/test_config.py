"""config.json follows the plan in every field, and old layers keep their kind."""

import json
import sys

import pytest
import transformers

from lesa_jax.base.errors import InputError
from lesa_jax.planning.config import grow_config
from lesa_jax.planning.config_process import grow_configs_apart
from lesa_jax.planning.placement import make_plan
from tests.support.every_type import tiny_config
from tests.support.tiny import DECODERS, tiny

PLANS = [make_plan(6, "lesa"), make_plan(6, "solar"), make_plan(6, "duplicate", gaps=[0, 3]), make_plan(6, "llama_pro")]


def config_of(family):
    return json.loads((tiny(family) / "config.json").read_text())


@pytest.mark.parametrize("plan", PLANS, ids=str)
@pytest.mark.parametrize("family", DECODERS)
def test_grown_config_is_valid_and_every_layer_keeps_its_kind(tmp_path, family, plan):
    grown = grow_config(config_of(family), plan)
    (tmp_path / "config.json").write_text(json.dumps(grown))
    before = transformers.AutoConfig.from_pretrained(tiny(family))
    after = transformers.AutoConfig.from_pretrained(tmp_path)
    assert after.num_hidden_layers == plan.layers
    for field in ("layer_types", "no_rope_layers"):
        if getattr(before, field, None) is not None:
            assert getattr(after, field) == [getattr(before, field)[slot.layer] for slot in plan.slots]


def test_fields_that_are_not_about_layers_stay(tmp_path):
    config = config_of("llama") | {"eos_token_id": [1, 2, 3, 4, 5, 6], "architectures": ["LlamaForCausalLM"]}
    grown = grow_config(config, PLANS[0])
    assert {key for key in config if config[key] != grown[key]} == {"num_hidden_layers"}


def test_gemma3_written_without_layer_types_gets_them():
    """transformers derives them from the pattern; after an insertion the pattern would give old layers another kind."""
    config = config_of("gemma3")
    types = config.pop("layer_types")
    grown = grow_config(config, PLANS[2])
    assert grown["layer_types"] == [types[slot.layer] for slot in PLANS[2].slots]


def test_numbers_and_counts_of_layers_follow():
    plan = make_plan(6, "duplicate", gaps=[0, 3])  # 0 +0 1 2 3 +3 4 5
    assert grow_config(config_of("qwen2"), plan)["max_window_layers"] == 4
    assert grow_config(config_of("qwen3_moe"), plan)["mlp_only_layers"] == [0, 1]
    assert (
        grow_config({"model_type": "x", "num_layers": 6, "first_k_dense_replace": 1}, plan)["first_k_dense_replace"]
        == 2
    )


def test_every_second_layer_sparse_becomes_a_list():
    config = config_of("qwen3_moe") | {"decoder_sparse_step": 2, "mlp_only_layers": []}
    grown = grow_config(config, make_plan(6, "duplicate", gaps=[0, 3]))
    assert (grown["decoder_sparse_step"], grown["mlp_only_layers"]) == (1, [0, 1, 3, 6])


def test_multimodal_configs_grow_their_text_part():
    config = {"model_type": "x", "text_config": {"num_hidden_layers": 6}, "vision_config": {"num_hidden_layers": 6}}
    grown = grow_config(config, PLANS[0])
    assert grown["text_config"]["num_hidden_layers"] == 9
    assert grown["vision_config"]["num_hidden_layers"] == 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale_attn_by_inverse_layer_idx": True}, "ties what a layer computes to its number"),
        ({"hidden_size": 33}, "transformers refuses it as llama"),
        ({"first_k_dense_replace": 3, "model_type": "x"}, "cannot describe the grown model"),
    ],
)
def test_what_cannot_be_expressed_is_refused(changes, message):
    with pytest.raises(InputError, match=message) as caught:
        grow_config(config_of("llama") | changes, PLANS[1])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("changes", [{}, {"hidden_size": 33}])
def test_the_process_without_torch_answers_the_same(monkeypatch, changes):
    config = config_of("gemma3") | changes

    def outcome():
        grown = grow_configs_apart(config, PLANS)
        return [str(config) if isinstance(config, InputError) else config for config in grown]

    here = outcome()  # transformers is imported in this process
    monkeypatch.delitem(sys.modules, "transformers")
    assert outcome() == here


def test_source_config_is_not_changed():
    config = config_of("gemma3")
    copy = json.loads(json.dumps(config))
    grow_config(config, PLANS[0])
    assert config == copy


def test_what_is_tagged_as_a_number_is_read_as_transformers_reads_it():
    config = json.loads(tiny_config("bamba", attn_layer_indices=[1, 4]).to_json_string(use_diff=False))
    assert config["time_step_limit"] == [0.0, {"__float__": "Infinity"}]
    grown = grow_config(config, make_plan(6, "duplicate", gaps=[0, 3]))
    assert (grown["attn_layer_indices"], grown["time_step_limit"]) == ([2, 6], config["time_step_limit"])


def test_ranges_periods_tables_and_factors_follow():
    plan = make_plan(6, "duplicate", gaps=[0, 3])  # 0 +0 1 2 3 +3 4 5
    ernie = {"model_type": "x", "num_layers": 6, "moe_layer_start_index": 1, "moe_layer_end_index": 3}
    grown = grow_config(ernie, plan)
    assert (grown["moe_layer_start_index"], grown["moe_layer_end_index"]) == (2, 5)
    assert grow_config(ernie | {"moe_layer_end_index": -1}, plan)["moe_layer_end_index"] == 7
    kinds = {"model_type": "x", "num_layers": 6, "block_types": ["a", "a", "b"]}
    assert grow_config(kinds, plan)["block_types"] == list("aaabaaab")
    table = {"model_type": "x", "num_layers": 6, "per_layer_config": {"03": {"head_dim": 8}, "full": {}}}
    assert grow_config(table, plan)["per_layer_config"] == {"full": {}, "4": {"head_dim": 8}, "5": {"head_dim": 8}}
    scale = grow_config({"model_type": "x", "num_layers": 6, "scale_depth": 1.4}, plan)["scale_depth"]
    assert scale / 8**0.5 == pytest.approx(1.4 / 6**0.5, rel=1e-15)


def test_a_default_that_speaks_of_layers_is_grown_though_config_json_is_silent():
    config = tiny_config("ernie4_5_moe").to_dict()
    del config["moe_layer_start_index"], config["moe_layer_end_index"]
    grown = grow_config(config, make_plan(6, "duplicate", gaps=[0]))
    assert (grown["moe_layer_start_index"], grown["moe_layer_end_index"]) == (2, 6)


@pytest.mark.parametrize(
    ("model_type", "entries", "message"),
    [
        ("diffllama", {}, "lambda_init"),
        ("minimax", {}, "slopes"),
        ("gpt_neox_japanese", {}, "last layer"),
        ("x", {"moe_layer_interval": 2}, "moe_layer_interval=2 ties"),
        ("x", {"num_kv_shared_layers": 2}, "num_kv_shared_layers=2 ties"),
        ("x", {"first_k_dense_replace": "3"}, "first_k_dense_replace is '3'"),
        ("x", {"decoder_sparse_step": 2.5}, "decoder_sparse_step is 2.5"),
        ("x", {"scale_depth": "1"}, "scale_depth is '1'"),
        ("x", {"block_types": [1]}, "block_types is"),
        ("x", {"moe_layer_start_index": True, "moe_layer_end_index": 3}, "moe_layer_start_index is True"),
    ],
)
def test_what_depends_on_depth_or_is_no_number_is_refused_by_name(model_type, entries, message):
    with pytest.raises(InputError, match=message) as caught:
        grow_config({"model_type": model_type, "num_hidden_layers": 6} | entries, PLANS[2])
    assert "\n" not in str(caught.value)
