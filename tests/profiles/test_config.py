"""config.json: apple's own for apple's own profile; for others, one of which every reader makes the same sizes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesa_jax.models.config import read_config
from lesa_jax.profiles.config import to_config
from lesa_jax.profiles.named import PROFILES, Profile, layer_sizes
from lesa_jax.profiles.sizes import Shape, explicit_sizes

# apple/OpenELM-1_1B, as in its config.json but for auto_map, torch_dtype and transformers_version.
OPENELM_1_1B = {
    "activation_fn_name": "swish",
    "architectures": ["OpenELMForCausalLM"],
    "bos_token_id": 1,
    "eos_token_id": 2,
    "ffn_dim_divisor": 256,
    "ffn_multipliers": [
        0.5, 0.63, 0.76, 0.89, 1.02, 1.15, 1.28, 1.41, 1.54, 1.67, 1.8, 1.93, 2.06, 2.19, 2.31, 2.44, 2.57, 2.7, 2.83,
        2.96, 3.09, 3.22, 3.35, 3.48, 3.61, 3.74, 3.87, 4.0,
    ],
    "ffn_with_glu": True,
    "head_dim": 64,
    "initializer_range": 0.02,
    "max_context_length": 2048,
    "model_dim": 2048,
    "model_type": "openelm",
    "normalization_layer_name": "rms_norm",
    "normalize_qk_projections": True,
    "num_gqa_groups": 4,
    "num_kv_heads": [4, 4, 4, 5, 5, 5, 5, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 6, 7, 7, 7, 7, 7, 7, 8, 8, 8, 8],
    "num_query_heads": [
        16, 16, 16, 20, 20, 20, 20, 20, 20, 20, 24, 24, 24, 24, 24, 24, 24, 24, 28, 28, 28, 28, 28, 28, 32, 32, 32, 32,
    ],
    "num_transformer_layers": 28,
    "qkv_multipliers": [0.5, 1.0],
    "rope_freq_constant": 10000,
    "rope_max_length": 4096,
    "share_input_output_layers": True,
    "use_cache": True,
    "vocab_size": 32000,
}  # fmt: skip


def test_openelm_is_apples_own():
    shape, profile = Shape(28, 2048, 64, 4, 32000), Profile("vanilla", (0.5, 4.0), (0.5, 1.0))
    assert to_config(shape, layer_sizes(profile, shape), profile) == OPENELM_1_1B


def divisible(width, divisor):
    """As the readers have it: configuration_openelm.py, mlx-lm, llama.cpp's converter."""
    rounded = max(divisor, int(width + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * width else rounded


def heads_by_openelm(config):
    """What configuration_openelm.py computes over the lists; None where it stops."""
    match config["qkv_multipliers"]:
        case [first, last]:
            values = [round(v, 2) for v in np.linspace(first, last, config["num_transformer_layers"])]
        case list():
            return None
        case value:
            values = [value] * config["num_transformer_layers"]
    multiple = config["head_dim"] * config["num_gqa_groups"]
    return [divisible(config["model_dim"] * value, multiple) // config["head_dim"] for value in values]


def check_readable(config, sizes):
    widths = [divisible(m * config["model_dim"], config["ffn_dim_divisor"]) for m in config["ffn_multipliers"]]
    assert widths == list(sizes.ffn)
    assert config["num_query_heads"] == list(sizes.q_heads)
    assert config["num_kv_heads"] == list(sizes.kv_heads)
    assert heads_by_openelm(config) in (None, list(sizes.q_heads))
    model = read_config(config)
    own = [model.sizes_of(layer) for layer in range(model.num_layers)]
    assert [*zip(*own, strict=True)] == [sizes.q_heads, sizes.kv_heads, sizes.ffn]


@given(
    st.sampled_from(list(PROFILES)),
    st.integers(3, 40),
    st.sampled_from([320, 640, 768, 1280]),
    st.integers(1, 4),
    st.sampled_from([1, 8, 100, 192, 256]),
    st.sampled_from(["openelm", "olmo"]),
)
def test_every_reader_makes_the_same_sizes(name, layers, hidden, ratio, divisor, rounding):
    shape = Shape(layers, hidden, 64, ratio, 32000, ffn_divisor=divisor, rounding=rounding)
    sizes = layer_sizes(PROFILES[name], shape)
    check_readable(to_config(shape, sizes, PROFILES[name]), sizes)


@given(st.lists(st.tuples(st.integers(1, 90), st.integers(1, 20)), min_size=3, max_size=9), st.integers(1, 700))
def test_explicit_sizes_come_back(layers, divisor):
    shape = Shape(len(layers), 700, 64, 2, 32000, ffn_divisor=divisor)
    sizes = explicit_sizes(shape, [divisor * width for width, _ in layers], [2 * heads for _, heads in layers])
    check_readable(to_config(shape, sizes), sizes)


def test_layer_norm_scaling_is_a_list():
    shape = Shape(4, 768, 64, 3, 32000, norm_scaling=True)
    config = to_config(shape, layer_sizes(PROFILES["vanilla"], shape), PROFILES["vanilla"])
    assert config["norm_scales"] == pytest.approx([1, 2**-0.5, 3**-0.5, 0.5], rel=1e-15)
    assert read_config(config).norm_scales == tuple(config["norm_scales"])


@pytest.mark.parametrize(("name", "entry"), [("isotropic", 0.75), ("vanilla", [0.5, 1.0])])
def test_what_openelms_own_code_can_say_it_says(name, entry):
    shape = Shape(18, 768, 64, 3, 32000)
    assert to_config(shape, layer_sizes(PROFILES[name], shape), PROFILES[name])["qkv_multipliers"] == entry


@pytest.mark.parametrize("name", ["framed", "reverse", "crown"])
def test_what_it_cannot_say_it_refuses_rather_than_build_another_model(name):
    shape = Shape(18, 768, 64, 3, 32000)
    assert heads_by_openelm(to_config(shape, layer_sizes(PROFILES[name], shape), PROFILES[name])) is None


def test_a_width_that_openelms_rule_would_not_make_is_written_as_itself():
    shape = Shape(2, 640, 64, 3, 32000, ffn_divisor=192, rounding="olmo")
    profile = Profile("isotropic", (1.0,), (1.0,))
    config = to_config(shape, layer_sizes(profile, shape), profile)
    assert config["ffn_multipliers"] == [1.2, 1.2]  # 768; a multiplier of 1 would be read as 576
    assert config["num_query_heads"] == [12, 12]
