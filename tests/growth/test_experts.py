"""Growth of mixtures of experts: silence, matched experts, fitted routers."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.reader import open_checkpoint, read
from lesa_jax.growth.experts import by_tokens, by_weights, match_experts
from lesa_jax.growth.preserved import check_preserved
from lesa_jax.growth.report import print_report
from lesa_jax.growth.routers import ridge
from lesa_jax.models.config import read_model
from lesa_jax.models.decoder import logits
from lesa_jax.models.load import load_model
from lesa_jax.models.streams import routings
from lesa_jax.planning.placement import make_plan
from tests.support.changed import changed_copy
from tests.support.growth import TOKENS, grow
from tests.support.tiny import tiny
from tests.support.tokenizers import tiny_tokenizer

PLAN = make_plan(6, "identity", gaps=[1, 4])
NUMBERS = (2, 0, 3, 1)  # of granitemoe's experts in another order
LAYER = "model.layers.{}.block_sparse_moe.{}.weight"
STACKED = ("input_linear", "output_linear", "router.layer")
NUMBERED = {"w1": (48, 32), "w2": (32, 48), "w3": (48, 32)}


def all_output(folder):
    params, config = load_model(folder)
    return np.asarray(logits(params, jnp.asarray(TOKENS), config))


@pytest.mark.parametrize(
    ("family", "tensor", "place"),
    [
        ("mixtral", "model.layers.2.block_sparse_moe.experts.{}.w2.weight", (3, 3)),
        *(
            pytest.param(*more, marks=pytest.mark.slow)
            for more in (
                ("granitemoe", "model.layers.2.block_sparse_moe.output_linear.weight", ("{}", 3, 3)),
                ("qwen2_moe", "model.layers.2.mlp.shared_expert.down_proj.weight", (3, 3)),
                ("deepseek_v3", "model.layers.6.mlp.experts.{}.down_proj.weight", (3, 3)),
            )
        ),
    ],
)
def test_an_expert_that_is_not_silent_is_found_whoever_would_choose_it(tmp_path, family, tensor, place):
    grow(tiny(family), tmp_path / "grown", "identity", gaps="1,4")
    for expert in range(4):

        def loud(weights, expert=expert):
            at = tuple(expert if number == "{}" else number for number in place)
            weights[tensor.format(expert)][at] = 1e-2

        folder = changed_copy(tmp_path / "grown", tmp_path / f"loud-{expert}", loud)
        with pytest.raises(InputError, match="new layer . is not silent"):
            check_preserved(open_checkpoint(tiny(family)), folder, PLAN)


def alike(weights, shift=0.0):
    """All layers have the first one's experts, those of the odd ones in another order."""
    for layer in range(1, 6):
        for name in STACKED:
            first = weights[LAYER.format(0, name)]
            moved = first[list(NUMBERS)] if layer % 2 else first
            weights[LAYER.format(layer, name)] = np.ascontiguousarray(moved + np.float32(shift * layer))


def numbered_alike(weights):
    """The same of experts that are tensors of their own."""
    order = np.random.default_rng(0).permutation(12)
    for layer in range(1, 6):
        moved = order if layer % 2 else np.arange(12)
        weights[LAYER.format(layer, "gate")] = np.ascontiguousarray(weights[LAYER.format(0, "gate")][moved])
        for expert in range(12):
            for name in NUMBERED:
                source = weights[LAYER.format(0, f"experts.{moved[expert]}.{name}")]
                weights[LAYER.format(layer, f"experts.{expert}.{name}")] = source.copy()


def test_experts_are_found_again_in_another_order(tmp_path):
    folder = changed_copy(tiny("granitemoe"), tmp_path / "source", alike)
    checkpoint = open_checkpoint(folder)
    model = read_model(checkpoint)
    orders = match_experts(by_weights(checkpoint, model, model.experts))
    back = tuple(int(number) for number in np.argsort(NUMBERS))
    assert [orders[layer] for layer in range(6)] == [(0, 1, 2, 3), back] * 3


@pytest.mark.parametrize("method", ["average_matched", pytest.param("lesa_matched", marks=pytest.mark.slow)])
@pytest.mark.parametrize("family", ["granitemoe", "mixtral"])
def test_what_is_grown_between_layers_that_differ_in_order_only_is_the_layer_below(tmp_path, family, method):
    """With every expert of a layer in another place, a mean by number is of unrelated experts, one by role is none."""
    folder = changed_copy(tiny(family), tmp_path / "source", alike if family == "granitemoe" else numbered_alike)
    grow(folder, tmp_path / "matched", method, gaps="1,2")
    grow(folder, tmp_path / "numbered", method.removesuffix("_matched"), gaps="1,2")
    grown = {name: open_checkpoint(tmp_path / name) for name in ("matched", "numbered")}
    names = STACKED if family == "granitemoe" else ["gate", *(f"experts.{e}.{w}" for e in range(12) for w in NUMBERED)]
    for position, below in ((2, 1), (4, 3)):  # 0 1 +1 2 +2 3
        for name in names:
            new, old = (LAYER.format(layer, name) for layer in (position, below))
            found = read(grown["matched"], new), read(grown["matched"], old)
            if method == "average_matched":
                np.testing.assert_allclose(*found, atol=1e-5)
            # Routers are copied where they are not matched; what writes is as loud as it is right in both.
            if "router" not in name and "gate" not in name and not name.endswith(("output_linear", "w2")):
                unmatched = read(grown["numbered"], new)
                assert np.linalg.norm(found[0] - found[1]) < 0.7 * np.linalg.norm(unmatched - found[1]), name


def test_experts_that_the_same_tokens_go_through_are_matched():
    """Against all assignments and numpy's correlations."""
    checkpoint = open_checkpoint(tiny("granitemoe"))
    model = read_model(checkpoint)
    tokens = np.random.default_rng(0).integers(0, model.vocab_size, (4, 64))
    orders = match_experts(by_tokens(checkpoint, model, model.experts, tokens))
    hits = [chosen_by(routing) for _, routing in routings(checkpoint, model, tokens)]
    assert len(hits) == len(orders) == 6
    for layer in range(1, 6):
        below, above = orders[layer - 1], hits[layer]
        likeness = np.corrcoef(hits[layer - 1][:, below].T, above.T)[:4, 4:]

        def total(order, likeness=likeness):
            return sum(likeness[role, expert] for role, expert in enumerate(order))

        best = max(itertools.permutations(range(4)), key=total)
        assert total(orders[layer]) == pytest.approx(total(best), abs=1e-6)


def chosen_by(routing):
    """Which experts each token goes through, as [tokens, experts] of 0 and 1."""
    found = np.zeros((routing.chosen.size // routing.chosen.shape[-1], routing.logits.shape[-1]))
    np.put_along_axis(found, np.asarray(routing.chosen).reshape(len(found), -1), 1, axis=1)
    return found


@pytest.mark.slow
def test_experts_and_routers_rows_move_together(tmp_path, text):
    """The same model with its experts in another order, layer by layer: what is grown of it computes the same."""

    def moved(weights):
        for layer in range(6):
            order = np.random.default_rng(layer).permutation(4)
            for name in STACKED:
                weights[LAYER.format(layer, name)] = np.ascontiguousarray(weights[LAYER.format(layer, name)][order])

    one = source_with_tokenizer(tmp_path, "granitemoe")
    other = changed_copy(one, tmp_path / "other", moved)
    tiny_tokenizer().save_pretrained(other)
    np.testing.assert_allclose(all_output(other), all_output(one), atol=1e-5)
    by_tokens = {"match_experts": text}
    for method, options, equal in (
        ("average_matched", {}, True),
        ("average_matched", by_tokens, True),
        ("average", {}, False),
    ):
        outputs = []
        for source in (one, other):
            grown = tmp_path / f"{method}-{len(options)}-{source.name}"
            grow(source, grown, method, gaps="1,3", **options)
            outputs.append(all_output(grown))
        assert np.allclose(*outputs, atol=1e-5) == equal


def test_only_methods_that_match_experts_take_a_text_to_match_them_by(tmp_path, text):
    with pytest.raises(InputError, match="--match-experts belongs to methods that match experts, not to lesa"):
        grow(tiny("granitemoe"), tmp_path / "out", "lesa", match_experts=text)
    short = tmp_path / "short.txt"
    short.write_text("a")
    with pytest.raises(InputError, match="fewer than two tokens"):
        grow(source_with_tokenizer(tmp_path, "granitemoe"), tmp_path / "out", "lesa_matched", match_experts=short)
    assert not (tmp_path / "out").exists()


def test_a_bias_that_experts_are_chosen_with_is_that_of_the_layer_below(tmp_path):
    grow(tiny("deepseek_v3"), tmp_path / "out", "average_matched", gaps="3")
    before, after = open_checkpoint(tiny("deepseek_v3")), open_checkpoint(tmp_path / "out")
    name = "model.layers.{}.mlp.gate.e_score_correction_bias"
    assert np.array_equal(read(after, name.format(4)), read(before, name.format(3)))


@pytest.fixture
def text(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text("the quick brown fox jumps over the lazy dog, and 12 others. " * 40)
    return file


def source_with_tokenizer(tmp_path, family):
    folder = changed_copy(tiny(family), tmp_path / "source")
    tiny_tokenizer().save_pretrained(folder)
    return folder


ROUTED = ("mixtral", "qwen3_moe", "granitemoe", "deepseek_v3")


@pytest.mark.slow
@pytest.mark.parametrize("family", ROUTED)
def test_a_fitted_router_decides_nearly_as_its_neighbours(tmp_path, family, text):
    """Between two layers of one model; told of as entropies before and after."""
    source = source_with_tokenizer(tmp_path, family)
    plain = grow(source, tmp_path / "plain", "average_matched", gaps="3", eval_text=text)
    fitted = grow(source, tmp_path / "fitted", "average_matched", gaps="3", fit_routers=text)
    [router], [unfitted] = fitted.routers, plain.routers
    assert router.layer == unfitted.layer == 4
    assert unfitted.before == unfitted.after == router.before != router.after
    assert 0 < router.after <= 1
    record = json.loads((tmp_path / "fitted" / "growth.json").read_text())
    assert record["measurements"]["routers"] == [{"layer": 4, "before": router.before, "after": router.after}]
    assert (record["settings"]["fit_routers"], "routers" in fitted.seconds) == (True, True)
    before, after = (open_checkpoint(tmp_path / name) for name in ("plain", "fitted"))
    config = read_model(after)
    name = f"model.layers.4.{config.experts.names.router}.weight"
    differing = {n for n in after.entries if not np.array_equal(read(before, n), read(after, n))}
    assert differing == {name}


def test_routers_are_reported(tmp_path, text, capsys):
    report = grow(source_with_tokenizer(tmp_path, "mixtral"), tmp_path / "out", "average", gaps="2", fit_routers=text)
    print_report(report)
    [router] = report.routers
    assert f"3: {router.before:.3f} -> {router.after:.3f}" in capsys.readouterr().out


def test_ridge_regression_finds_the_router_that_made_the_logits():
    rng = np.random.default_rng(0)
    router, read_ = rng.standard_normal((5, 8)), rng.standard_normal((4000, 8))
    np.testing.assert_allclose(ridge(read_, read_ @ router.T), router, atol=1e-2)
    noise = rng.standard_normal((4000, 5))
    assert jnp.abs(jax.numpy.asarray(ridge(read_, noise))).max() < 0.1
