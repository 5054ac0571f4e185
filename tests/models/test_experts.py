"""Mixtures of experts against a reference that asks one token after the other."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.reader import open_checkpoint
from lesa_jax.families.model import ExpertNames, Experts
from lesa_jax.models import experts as experts_module
from lesa_jax.models.config import read_config
from lesa_jax.models.experts import by_loop, by_sorting, load, route, router_losses
from lesa_jax.models.load import load_model
from lesa_jax.models.shapes import check_tensors
from tests.support.changed import changed_copy
from tests.support.tiny import tiny

TOKENS, HIDDEN, WIDTH, NUMBER = 30, 6, 5, 8
NAMES = ExpertNames("router", "down", "gate", "up")
PLAIN = Experts(NAMES, NUMBER, 3, WIDTH)
ROUTINGS = {
    "softmax of the chosen": PLAIN,
    "softmax of all": replace(PLAIN, normalised=False),
    "one expert": replace(PLAIN, per_token=1, scale=1.5),
    "best groups": replace(PLAIN, normalised=False, groups=4, kept_groups=2, per_token=2),
    "sigmoids, groups by their two best, a bias": replace(
        PLAIN,
        names=replace(NAMES, selection_bias="bias"),
        scoring="sigmoid",
        groups=2,
        kept_groups=1,
        group_score="two",
    ),
}


def layer(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "router": {"weight": jnp.asarray(rng.standard_normal((NUMBER, HIDDEN)), jnp.float32)},
        "bias": jnp.asarray(rng.standard_normal(NUMBER), jnp.float32),
    }


def inputs(seed=1):
    rng = np.random.default_rng(seed)
    shapes = (NUMBER, WIDTH, HIDDEN), (NUMBER, WIDTH, HIDDEN), (NUMBER, HIDDEN, WIDTH)
    matrices = tuple(jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in shapes)
    return jnp.asarray(rng.standard_normal((TOKENS, HIDDEN)), jnp.float32), matrices


def reference_route(weights, x, experts):
    """Experts and weights of one token."""
    logits = np.asarray(weights["router"]["weight"], np.float64) @ x
    scores = np.exp(logits) / np.exp(logits).sum() if experts.scoring == "softmax" else 1 / (1 + np.exp(-logits))
    wanted = scores + (np.asarray(weights["bias"], np.float64) if experts.names.selection_bias else 0)
    groups = np.sort(wanted.reshape(experts.groups, -1), axis=1)
    best = groups[:, -1] if experts.group_score == "best" else groups[:, -2:].sum(axis=1)
    size = NUMBER // experts.groups
    allowed = [e for g in np.argsort(-best)[: experts.kept_groups] for e in range(g * size, (g + 1) * size)]
    chosen = sorted(allowed, key=lambda e: -wanted[e])[: experts.per_token]
    shares = scores[chosen] / scores[chosen].sum() if experts.normalised else scores[chosen]
    return chosen, experts.scale * shares


def reference(weights, x, matrices, experts):
    """The sum of each token's experts' answers, float64."""
    gate, up, down = (np.asarray(matrix, np.float64) for matrix in matrices)
    answers = np.zeros(x.shape)
    for n, token in enumerate(np.asarray(x, np.float64)):
        for e, share in zip(*reference_route(weights, token, experts), strict=True):
            inner = gate[e] @ token
            answers[n] += share * (down[e] @ (inner / (1 + np.exp(-inner)) * (up[e] @ token)))
    return answers


@pytest.mark.parametrize("way", [by_loop, by_sorting])
@pytest.mark.parametrize("routing", ROUTINGS)
def test_each_token_gets_the_sum_of_its_experts_answers(routing, way):
    experts, (x, matrices) = ROUTINGS[routing], inputs()
    decided = route(layer(), x, experts)
    found = way(x, decided.chosen, decided.weights, matrices, jax.nn.silu)
    np.testing.assert_allclose(found, reference(layer(), x, matrices, experts), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("way", [by_loop, by_sorting])
def test_experts_on_several_devices_say_together_what_they_say_on_one(way):
    x, matrices = inputs()
    decided = route(layer(), x, PLAIN)
    parts = [
        way(x, decided.chosen - first, decided.weights, tuple(m[first : first + 2] for m in matrices), jax.nn.silu)
        for first in range(0, NUMBER, 2)
    ]
    np.testing.assert_allclose(sum(parts), reference(layer(), x, matrices, PLAIN), rtol=1e-4, atol=1e-4)


def test_blocks_that_are_full_or_empty_are_like_others(monkeypatch):
    """Experts of no token, of one block exactly, and of several."""
    monkeypatch.setattr(experts_module, "BLOCK_ROWS", 4)
    x, matrices = inputs()
    chosen = jnp.asarray([0] * 4 + [2] * 9 + [5] * 16 + [7], jnp.int32)[:, None]
    weights = jnp.asarray(np.random.default_rng(3).random((TOKENS, 1)), jnp.float32)
    looped = by_loop(x, chosen, weights, matrices, jax.nn.silu)
    np.testing.assert_allclose(looped, by_sorting(x, chosen, weights, matrices, jax.nn.silu), rtol=1e-4, atol=1e-4)


def test_both_ways_have_the_same_gradients():
    x, matrices = inputs()

    def loss(x, router, matrices, way):
        decided = route({"router": {"weight": router}}, x, PLAIN)
        return jnp.sum(jnp.sin(way(x, decided.chosen, decided.weights, matrices, jax.nn.silu)))

    arguments = x, layer()["router"]["weight"], matrices
    ours, theirs = (jax.grad(loss, argnums=(0, 1, 2))(*arguments, way) for way in (by_loop, by_sorting))
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert jnp.any(a)  # numbers up to 14, whose rounding shows in the small ones that are sums of them
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(b).max())


def test_experts_that_move_together_with_the_routers_rows_compute_the_same():
    x, matrices = inputs()
    order = np.random.default_rng(2).permutation(NUMBER)
    moved = {"router": {"weight": layer()["router"]["weight"][order]}}
    decided, after = route(layer(), x, PLAIN), route(moved, x, PLAIN)
    found = by_loop(x, after.chosen, after.weights, tuple(matrix[order] for matrix in matrices), jax.nn.silu)
    np.testing.assert_allclose(
        found, by_loop(x, decided.chosen, decided.weights, matrices, jax.nn.silu), rtol=1e-4, atol=1e-5
    )


def test_experts_that_are_all_one_are_a_dense_network():
    x, matrices = inputs()
    gate, up, down = (matrix[0] for matrix in matrices)
    decided = route(layer(), x, PLAIN)
    alike = tuple(jnp.broadcast_to(matrix[:1], matrix.shape) for matrix in matrices)
    found = by_loop(x, decided.chosen, decided.weights, alike, jax.nn.silu)
    np.testing.assert_allclose(found, (jax.nn.silu(x @ gate.T) * (x @ up.T)) @ down.T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("platform", "loops"), [("cpu", True), ("cuda", False), ("tpu", False)])
def test_the_way_is_that_of_the_platform_compiled_for(platform, loops):
    """Whatever machine compiles."""
    from lesa_jax.models.experts import ask

    x, matrices = inputs()
    decided = route(layer(), x, PLAIN)
    program = jax.jit(lambda *arguments: ask(*arguments, jax.nn.silu))
    arguments = x[None], decided.chosen[None], decided.weights[None], matrices
    lowered = program.trace(*arguments).lower(lowering_platforms=(platform,)).as_text()
    assert ("while" in lowered, "ragged_dot" in lowered) == (loops, not loops)


def test_the_loss_for_even_use_is_that_of_transformers_and_passes_padding_over():
    x, _ = inputs()
    decided, counted = route(layer(), x, PLAIN), jnp.asarray(np.arange(TOKENS) < 20, jnp.float32)
    logits = (torch.tensor(np.asarray(decided.logits[:20])),)
    losses = router_losses(decided, PLAIN, counted)
    np.testing.assert_allclose(losses.balance, load_balancing_loss_func(logits, NUMBER, 3), rtol=1e-5)
    np.testing.assert_allclose(losses.z, (torch.logsumexp(logits[0], dim=-1) ** 2).mean(), rtol=1e-5)
    np.testing.assert_allclose(load(decided.chosen, NUMBER, counted).sum(), PLAIN.per_token, rtol=1e-6)


def test_routers_that_use_all_alike_have_the_least_loss():
    even = route({"router": {"weight": 20 * jnp.eye(NUMBER)}}, jnp.eye(NUMBER), replace(PLAIN, per_token=1))
    np.testing.assert_allclose(router_losses(even, PLAIN, jnp.ones(NUMBER)).balance, 1, rtol=1e-5)
    one = route({"router": {"weight": 20 * jnp.eye(NUMBER)}}, jnp.eye(NUMBER)[:1], replace(PLAIN, per_token=1))
    assert router_losses(one, PLAIN, jnp.ones(1)).balance > 0.99 * NUMBER


def without(*names):
    return lambda weights: [weights.pop(name) for name in names]


def with_shared(weights):
    for layer in range(6):
        weights[f"model.layers.{layer}.mlp.shared_expert.up_proj.weight"] = np.zeros((8, 32), np.float32)


FAULTS = {
    "an expert missing": (
        "mixtral",
        without("model.layers.2.block_sparse_moe.experts.5.w1.weight"),
        {},
        r"model\.layers\.2\.block_sparse_moe\.experts\.5\.w1\.weight is missing, though other experts",
    ),
    "the last expert missing everywhere": (
        "mixtral",
        without(*(f"model.layers.{i}.block_sparse_moe.experts.11.w{w}.weight" for i in range(6) for w in (1, 2, 3))),
        {},
        r"experts\.11\.w1\.weight is missing, though other experts",
    ),
    "more experts than config.json has": ("mixtral", None, {"num_local_experts": 8}, r"gate\.weight is \[6, 12, 32\]"),
    "a shared expert that config.json has not": (
        "olmoe",
        with_shared,
        {},
        r"mlp\.shared_expert\.up_proj\.weight has no place in a olmoe forward pass; .* entries about experts",
    ),
    "experts in a layer that has none": ("qwen3_moe", None, {"mlp_only_layers": [0, 3]}, "is missing or its layers"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_tensors_that_contradict_the_config_are_named(tmp_path, fault):
    family, change, entries, message = FAULTS[fault]
    folder = changed_copy(tiny(family), tmp_path / "changed", change, **entries)
    checkpoint = open_checkpoint(folder)
    with pytest.raises(InputError, match=message) as caught:
        check_tensors(checkpoint, read_config(checkpoint.config))
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=message):
        load_model(folder)


@pytest.mark.parametrize(
    ("family", "entries", "message"),
    [
        ("deepseek_v3", {"scoring_func": "softmax"}, "scoring_func 'softmax' is not implemented; supported: sigmoid"),
        ("deepseek_v3", {"topk_method": "greedy"}, "topk_method 'greedy' is not implemented; supported: noaux_tc"),
        ("deepseek_v2", {"topk_method": "random"}, "topk_method 'random' is not implemented; supported: greedy, group"),
        ("deepseek_v2", {"norm_topk_prob": True}, "norm_topk_prob is true, which transformers does not heed"),
        ("deepseek_v2", {"n_group": 3}, "n_group is 3; expected a divisor of n_routed_experts, which is 8"),
        ("deepseek_v2", {"v_head_dim": 13}, "v_head_dim is 13; expected at most 12"),
        ("mixtral", {"num_experts_per_tok": 13}, "num_experts_per_tok is 13; expected at most num_local_experts"),
        ("qwen3_moe", {"mlp_only_layers": [0.5]}, "mlp_only_layers is .*; expected a list of layers' numbers"),
    ],
)
def test_routing_that_is_not_implemented_is_refused(family, entries, message):
    with pytest.raises(InputError, match=message):
        read_config(open_checkpoint(tiny(family)).config | entries)
