"""Sizes of layers against those of the published models, written out by hand: OpenELM's and arXiv 2509.06518's."""

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lesa_jax.base.errors import InputError
from lesa_jax.families.openelm import round_openelm
from lesa_jax.profiles.curves import curve
from lesa_jax.profiles.named import PROFILES, Profile, layer_sizes, multipliers
from lesa_jax.profiles.rounding import ROUNDINGS, round_olmo
from lesa_jax.profiles.sizes import Shape, count_parameters, explicit_sizes

OPENELM = Profile("vanilla", (0.5, 4.0), (0.5, 1.0))
# Layers, hidden size and head width; feed-forward widths; runs of (query heads, layers); parameters.
RELEASED = {
    "270M": (
        (16, 1280, 64),
        (768, 1024, 1280, 1536, 1792, 2048, 2560, 2816, 3072, 3328, 3584, 3840, 4352, 4608, 4864, 5120),
        ((12, 5), (16, 7), (20, 4)),
        271_527_168,
    ),
    "450M": (
        (20, 1536, 64),
        (768, 1024, 1280, 1536, 1792, 2304, 2560, 2816, 3072, 3328, 3584, 3840, 4096, 4352, 4608, 5120, 5376, 5632,
         5888, 6144),
        ((12, 3), (16, 7), (20, 6), (24, 4)),
        457_179_136,
    ),
    "1.1B": (
        (28, 2048, 64),
        (1024, 1280, 1536, 1792, 2048, 2304, 2560, 2816, 3072, 3328, 3584, 3840, 4096, 4608, 4608, 5120, 5376, 5632,
         5888, 6144, 6400, 6656, 6912, 7168, 7424, 7680, 7936, 8192),
        ((16, 3), (20, 7), (24, 8), (28, 6), (32, 4)),
        1_079_891_456,
    ),
    "3B": (
        (36, 3072, 128),
        (1536, 1792, 2048, 2560, 2816, 3072, 3328, 3584, 4096, 4352, 4608, 4864, 5120, 5632, 5888, 6144, 6400, 6656,
         7168, 7424, 7680, 7936, 8192, 8704, 8960, 9216, 9472, 9728, 10240, 10496, 10752, 11008, 11264, 11776, 12032,
         12288),
        ((12, 4), (16, 14), (20, 12), (24, 6)),
        3_036_647_424,
    ),
}  # fmt: skip

RISING = (3072, 512, 768, 1024, 1024, 1280, 1280, 1536, 1536, 1792, 2048, 2048, 2304, 2560, 2560, 2816, 2816, 3072)
# Of 18 layers, hidden size 768, head width 64, three query heads to a key-value head: feed-forward widths, query
# heads, and millions of parameters in layers and in all, of 50304 rows and a head of its own.
PUBLISHED = {
    "isotropic": ((2048,) * 18, (9,) * 18, "106.21", "183.48"),
    "vanilla": (
        (768, 1024, 1024, 1280, 1280, 1536, 1536, 1792, 1792, 2048, 2048, 2304, 2304, 2560, 2560, 2816, 2816, 3072),
        (6, 6, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 12, 12, 12, 12, 12, 12),
        "102.48",
        "179.74",
    ),
    "framed": (RISING, (12, 6, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 12, 12, 12, 12, 12, 12), "102.08", "179.35"),
    "reverse": (
        (3072, 2816, 2816, 2560, 2560, 2304, 2048, 2048, 1792, 1536, 1536, 1280, 1280, 1024, 1024, 768, 512, 3072),
        (12, 12, 12, 12, 12, 12, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 6, 12),
        "102.08",
        "179.35",
    ),
    "crown": (
        (3072, 768, 1024, 1280, 1536, 2048, 2304, 2560, 2816, 2816, 2560, 2304, 2048, 1536, 1280, 1024, 768, 3072),
        (12, 9, 9, 9, 9, 9, 12, 12, 12, 12, 12, 12, 9, 9, 9, 9, 9, 12),
        "104.64",
        "181.91",
    ),
}  # fmt: skip
THREE = {6: 2, 9: 3, 12: 4}

both_rules = pytest.mark.parametrize("rounding", ROUNDINGS)


def paper(rounding="olmo", layers=18) -> Shape:
    return Shape(layers, 768, 64, 3, 50304, tied=False, rounding=rounding)


@both_rules
@pytest.mark.parametrize("name", RELEASED)
def test_openelm_of_every_released_size(name, rounding):
    (layers, hidden, head), ffn, runs, parameters = RELEASED[name]
    shape = Shape(layers, hidden, head, 4, 32000, rounding=rounding)
    sizes = layer_sizes(OPENELM, shape)
    assert sizes.ffn == ffn
    assert sizes.q_heads == tuple(heads for heads, count in runs for _ in range(count))
    assert sizes.kv_heads == tuple(heads // 4 for heads, count in runs for _ in range(count))
    assert count_parameters(shape, sizes) == parameters


@both_rules
@pytest.mark.parametrize("name", PUBLISHED)
def test_the_five_profiles_as_published(name, rounding):
    ffn, heads, _, _ = PUBLISHED[name]
    sizes = layer_sizes(PROFILES[name], paper(rounding))
    assert sizes.ffn == ffn
    assert sizes.q_heads == heads
    assert sizes.kv_heads == tuple(THREE[each] for each in heads)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_of_the_five_profiles_as_published(name):
    """Their norms of queries and keys are OLMo 2's, of the full width."""
    ffn, heads, in_layers, in_all = PUBLISHED[name]
    shape = replace(paper(), qk_norm="all")
    counted = count_parameters(shape, explicit_sizes(shape, ffn, heads))
    wider = sum((q + THREE[q] - 2) * 64 for q in heads)
    assert counted == count_parameters(paper(), explicit_sizes(paper(), ffn, heads)) + wider
    assert f"{counted / 1e6:.2f}" == in_all
    assert f"{(counted - 2 * 50304 * 768 - 768) / 1e6:.2f}" == in_layers


def test_the_isotropic_model_of_twelve_layers_as_published():
    shape = paper(layers=12)
    sizes = layer_sizes(Profile("isotropic", (4.0,), (1.0,)), shape)
    assert sizes == explicit_sizes(shape, (3072,) * 12, (12,) * 12)
    assert f"{(count_parameters(shape, sizes) + 12 * (12 + 4 - 2) * 64) / 1e6:.2f}" == "181.11"


def test_parameters_are_those_of_the_tensors():
    shape = Shape(2, 8, 4, 2, 10, tied=False, ffn_divisor=1)
    layer_0 = [(4 + 2 * 2) * 4 * 8, 8 * 16, 4, 4, 2 * 5 * 8, 8 * 5, 8, 8]
    layer_1 = [(2 + 2 * 1) * 4 * 8, 8 * 8, 4, 4, 2 * 7 * 8, 8 * 7, 8, 8]
    outside = [10 * 8, 10 * 8, 8]
    assert count_parameters(shape, explicit_sizes(shape, (5, 7), (4, 2))) == sum([*layer_0, *layer_1, *outside])


def test_the_two_rounding_rules():
    for width, expected in ((1.0, 192), (191.0, 192), (288.0, 384), (384.0, 384), (212.0, 192), (214.0, 384)):
        assert round_openelm(width, 192) == round_olmo(width, 192) == expected
    assert (round_openelm(640.0, 192), round_olmo(640.0, 192)) == (576, 768)  # a tenth is lost, no more


@given(st.floats(0.1, 1e5), st.integers(1, 2000), st.floats(1, 2))
def test_rounding_gives_multiples_that_lose_no_tenth_and_never_fall(width, divisor, factor):
    for rule in ROUNDINGS.values():
        rounded = rule(width, divisor)
        assert rounded > 0
        assert rounded % divisor == 0
        assert rounded >= 0.9 * width
        assert rounded <= width + divisor
        assert rule(width * factor, divisor) >= rounded
        assert rule(float(rounded), divisor) == rounded


def test_curves():
    assert curve((2.5,), 3) == (2.5, 2.5, 2.5)
    assert curve((0.5, 1.0), 4) == (0.5, 0.67, 0.83, 1.0)
    assert curve((0.5, 2.0, 0.5), 5) == (0.5, 1.25, 2.0, 1.25, 0.5)
    assert curve((0.5, 2.0, 0.5), 6) == (0.5, 1.25, 2.0, 2.0, 1.25, 0.5)
    assert curve((0.5, 2.0, 1.0), 6) == (0.5, 1.25, 2.0, 2.0, 1.5, 1.0)
    assert curve((1.0, 2.0, 1.0), 3) == (1.0, 2.0, 1.0)


def test_what_falls_is_the_mirror_of_what_rises_to_the_last_bit():
    assert curve((4.28, 0.5), 13) == curve((0.5, 4.28), 13)[::-1]
    crown = curve((0.5, 3.8, 0.5), 8)
    assert crown == crown[::-1]


def test_two_points_are_rounded_as_numpy_rounds():
    assert curve((0.63, 0.66), 3)[1] == 0.64  # 0.645 is nearer to 0.65 by Python's rounding


@given(st.integers(3, 60), st.sampled_from(list(ROUNDINGS)), st.sampled_from([256, 768, 1024]), st.integers(1, 4))
def test_what_holds_of_the_profiles_at_any_size(layers, rounding, hidden, ratio):
    shape = Shape(layers, hidden, 64, ratio, 32000, ffn_divisor=64, rounding=rounding)
    made = {name: layer_sizes(profile, shape) for name, profile in PROFILES.items()}
    for sizes in made.values():
        assert len(sizes.ffn) == len(sizes.q_heads) == len(sizes.kv_heads) == layers
        assert all(q == kv * ratio for q, kv in zip(sizes.q_heads, sizes.kv_heads, strict=True))
        assert not any(width % 64 for width in sizes.ffn)
    assert made["crown"].ffn == made["crown"].ffn[::-1]
    assert made["crown"].q_heads == made["crown"].q_heads[::-1]
    assert len({*made["isotropic"].ffn}) == len({*made["isotropic"].q_heads}) == 1
    assert list(made["vanilla"].ffn) == sorted(made["vanilla"].ffn)
    assert made["framed"].ffn[0] == made["framed"].ffn[-1] == max(made["framed"].ffn)


@both_rules
def test_reverse_is_the_mirror_of_framed(rounding):
    for layers in range(2, 61):
        shape = paper(rounding, layers)
        framed, reverse = (layer_sizes(PROFILES[name], shape) for name in ("framed", "reverse"))
        assert reverse.ffn == framed.ffn[::-1]
        assert reverse.q_heads == framed.q_heads[::-1]


def test_a_profile_needs_as_many_layers_as_points():
    with pytest.raises(InputError, match="--layers 2: crown goes through 3 points; take 3 or more"):
        layer_sizes(PROFILES["crown"], paper(layers=2))
    with pytest.raises(InputError, match="--layers 1: vanilla goes through 2 points"):
        multipliers(PROFILES["vanilla"], 1)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=8), st.integers(1, 4), st.data())
def test_explicit_sizes_are_kept_as_they_are(counts, ratio, data):
    shape = Shape(len(counts), 256, 64, ratio, 100, ffn_divisor=16)
    ffn, heads = [16 * count for count in counts], [ratio * count for count in counts]
    sizes = explicit_sizes(shape, ffn, heads)
    assert (list(sizes.ffn), list(sizes.q_heads), list(sizes.kv_heads)) == (ffn, heads, counts)
    layer, extra = data.draw(st.integers(0, len(counts) - 1)), data.draw(st.integers(1, 50))
    assume(extra % ratio)
    heads[layer] += extra
    with pytest.raises(InputError, match=f"--heads: layer {layer} has {heads[layer]} query heads, which --kv-ratio"):
        explicit_sizes(shape, ffn, heads)
