"""What the ablations in experiments/ share, on a random model of a few layers made here."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lesa_jax.checkpoint.tokenizer import load_tokenizer  # noqa: F401  (the ablations import it; fails early and clearly here)
from lesa_jax.evaluation.perplexity import model_nll, perplexity_of
from lesa_jax.initializers.lesa.predictor import PredictorSettings, predict
from lesa_jax.models.load import load_model
from lesa_jax.planning.placement import insert
from tests.support.tiny import tiny

# experiments/ is no package: its scripts are run, and import one another by name.
sys.path.insert(0, str(Path(__file__).parents[2] / "experiments" / "ablation"))

import ablation
import ablation_fit
import ablation_inputs
import continuity

SETTINGS = PredictorSettings(hidden_size=8, epochs=2, batch_size=16)
LENGTH = 12


@pytest.fixture(scope="module")
def subject() -> ablation.Subject:
    params, config = load_model(tiny("llama"))
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, (2, ablation.BATCH, LENGTH)).astype(np.int32)
    return ablation.Subject("tiny", jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params), config, tokens)


@pytest.fixture(scope="module")
def bases(subject):
    return ablation.svd_bases(ablation.weight_kinds(subject.layers))


def test_perplexity_is_that_of_the_corpus_protocol(subject):
    rows = list(subject.tokens.reshape(-1, LENGTH))
    expected = perplexity_of(model_nll(subject.params, subject.config), rows, "corpus", 4).perplexity
    assert ablation.measure(subject, ablation.base(subject)).perplexity == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("gaps", [(0,), (1, 3), (0, 1, 2, 3, 4)])
def test_silenced_layers_and_zero_matrices_change_nothing(subject, gaps):
    kinds, plan = ablation.weight_kinds(subject.layers), insert(subject.depth, gaps)
    base = ablation.measure(subject, ablation.base(subject))
    copied = ablation.copies(kinds, gaps)
    zero = {kind: 0 * matrix for kind, matrix in copied.items()}
    for matrices, silent in ((copied, True), (zero, False)):
        new = ablation.new_layers(subject.layers, gaps, matrices, "previous", silent)
        grown = ablation.measure(subject, ablation.grow(subject, plan, new))
        np.testing.assert_allclose(grown.window_nll, base.window_nll, rtol=1e-6)
    assert ablation.against(grown, base) == pytest.approx((0, 0), abs=1e-3)


def test_running_only_what_is_above_the_first_new_layer_is_the_same(subject):
    gaps = (2, 4)
    copied = ablation.copies(ablation.weight_kinds(subject.layers), gaps)
    grown = ablation.grow(
        subject, insert(subject.depth, gaps), ablation.new_layers(subject.layers, gaps, copied, "first")
    )
    assert grown.first_new == 3
    whole = ablation.measure(subject, grown)
    upper = ablation.measure(subject, grown, ablation.streams_at(subject, grown.first_new))
    np.testing.assert_allclose(upper.window_nll, whole.window_nll, rtol=1e-5)
    base = ablation.measure(subject, ablation.base(subject))
    assert np.abs(whole.window_nll - base.window_nll).max() > 1e-4


def test_norms_come_from_their_source(subject):
    layers, gaps = subject.layers, (1, 3)
    copied = ablation.copies(ablation.weight_kinds(layers), gaps)
    norm = np.asarray(layers["input_layernorm"]["weight"])
    expected = {"first": norm[[0, 0]], "previous": norm[[1, 3]], "next": norm[[2, 4]]}
    expected["mean"] = (expected["previous"] + expected["next"]) / 2
    for source, weights in expected.items():
        new = ablation.new_layers(layers, gaps, copied, source)
        np.testing.assert_allclose(new["input_layernorm"]["weight"], weights)


def test_matched_norms_are_the_neighbours(subject):
    kinds, gaps = ablation.weight_kinds(subject.layers), (0, 4)
    drawn = ablation.gaussian_like(ablation.copies(kinds, gaps))
    for kind, matrix in ablation.norm_matched(drawn, kinds, gaps).items():
        np.testing.assert_allclose(ablation.frobenius(matrix), ablation.neighbour_norms(kinds[kind], gaps), rtol=1e-5)
        np.testing.assert_allclose(
            ablation.frobenius(drawn[kind]), ablation.frobenius(kinds[kind][np.array(gaps)]), rtol=1e-5
        )


def test_a_grid_is_its_members_one_by_one(bases):
    basis = bases["mlp.up_proj"]
    members = [ablation_fit.Member(seed, lam, rate) for seed in (0, 1) for lam, rate in ((0.0, 1e-3), (1e-2, 1e-2))]
    grid = ablation_fit.fit_grid(basis, members, SETTINGS, held_out=(2,))
    for number, member in enumerate(members):
        alone = ablation_fit.fit_grid(basis, [member], SETTINGS, held_out=(2,))
        jax.tree.map(lambda g, a, i=number: np.testing.assert_allclose(g[i], a[0], rtol=1e-3, atol=1e-5), grid, alone)
    assert np.abs(grid["third_bias"][0] - grid["third_bias"][1]).max() > 1e-3  # the rate counts


def test_held_out_layers_are_no_targets():
    kept = np.array([True, False, True])
    samples = ablation_fit.training_samples(kept, layers=6, held_out=(2, 4))
    assert samples.tolist() == [0, 2, 6, 8]  # layers 1 and 3, rows 0 and 2
    order, used = ablation_fit.sample_batches(np.arange(10), 0, PredictorSettings(epochs=3, batch_size=4))
    assert order.shape == (3, 3, 4)
    for epoch, use in zip(order, used, strict=True):
        assert sorted(epoch[use > 0].tolist()) == list(range(10))
        assert use[-1].tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize("ridge", [0.0, 0.5])
def test_ridge_is_least_squares_with_a_penalty(ridge):
    v = np.random.default_rng(0).standard_normal((7, 20, 6)).astype(np.float32)
    basis = ablation.raw_bases({"w": jnp.asarray(v)})["w"]
    x, y = ablation_fit.samples_of(basis, held_out=(3,))
    assert x.shape == (80, 12)
    np.testing.assert_array_equal(x[21], np.concatenate([v[1, 1], v[3, 1]]))
    np.testing.assert_array_equal(y[21], v[2, 1])
    alpha = ridge * np.trace(x.T @ x) / 12
    expected = np.linalg.lstsq(
        np.concatenate([x, np.sqrt(alpha) * np.eye(12)]), np.concatenate([y, np.zeros((12, 6))]), rcond=None
    )[0]
    kernel = ablation_fit.fit_ridge(basis, [ridge], held_out=(3,))["kernel"][0]
    np.testing.assert_allclose(kernel, expected, atol=1e-5)


def test_errors_of_a_predictor_that_knows(bases):
    """On layers that are the mean of their neighbours, half the sum of both rows is right; twice that has error 1."""
    v = jnp.asarray(np.arange(5.0)[:, None, None] * np.random.default_rng(0).standard_normal((4, 6)), jnp.float32)
    basis = ablation.raw_bases({"w": v})["w"]
    half = np.concatenate([np.eye(6), np.eye(6)]) / 2
    kernels = {"kernel": jnp.asarray(np.stack([half, 2 * half, 0 * half]), jnp.float32)}
    right, double, zero = ablation_fit.prediction_errors(basis, kernels, (2,), ablation_fit.linear)
    for name in ("train", "held_out"):
        assert right[f"error_{name}"] == pytest.approx(0, abs=1e-6)
        assert double[f"error_{name}"] == pytest.approx(1, rel=1e-5)
        assert double[f"cosine_{name}"] == pytest.approx(1, rel=1e-5)
        assert double[f"norm_{name}"] == pytest.approx(2, rel=1e-5)
        assert zero[f"error_{name}"] == pytest.approx(1, rel=1e-5)


def test_matrices_are_the_basis_times_the_rows(bases):
    basis = bases["self_attn.k_proj"]
    params = ablation_fit.fit_grid(basis, [ablation_fit.Member()], SETTINGS)
    found = ablation_fit.predicted_matrices({"k": basis}, {"k": params}, [1, 3], [2, 4])["k"][0, 1]
    rows = predict(jax.tree.map(lambda leaf: leaf[0], params), jnp.concatenate([basis.v[3], basis.v[4]], axis=1))
    np.testing.assert_allclose(found, np.asarray(basis.u) @ np.diag(np.asarray(basis.s)) @ np.asarray(rows), atol=1e-5)


def test_a_copy_takes_after_the_layer_below_and_zero_after_none(subject):
    kinds, gaps = ablation.weight_kinds(subject.layers), (1, 3)
    copied = ablation.copies(kinds, gaps)
    found = ablation_inputs.resemblance(copied, kinds, gaps)
    assert found["cosine_below"] == pytest.approx(1, abs=1e-5)
    w = {kind: np.asarray(matrix, np.float64).reshape(len(matrix), -1) for kind, matrix in kinds.items()}
    unit = {kind: rows / np.linalg.norm(rows, axis=1, keepdims=True) for kind, rows in w.items()}
    above = np.mean([[rows[gap] @ rows[gap + 1] for gap in gaps] for rows in unit.values()])
    others = np.mean(
        [[rows[g] @ rows[j] for g in gaps for j in range(6) if j not in (g, g + 1)] for rows in unit.values()]
    )
    assert found["cosine_above"] == pytest.approx(above, abs=1e-5)
    assert found["cosine_others"] == pytest.approx(others, abs=1e-5)
    zero = {kind: 0 * matrix for kind, matrix in copied.items()}
    assert set(ablation_inputs.resemblance(zero, kinds, gaps).values()) == {0.0}


@pytest.mark.parametrize("mix", [False, True])
def test_gaussian_rows_have_the_lengths_of_the_predicted_ones(bases, mix):
    rows = {kind: 3 * basis.v[:2] for kind, basis in bases.items()}
    for kind, matrices in ablation_inputs.gaussian_rows(bases, rows, mix).items():
        basis = bases[kind]
        found = np.asarray(basis.u, np.float64).T @ np.asarray(matrices, np.float64)
        expected = np.linalg.norm(rows[kind], axis=-1) * np.asarray(basis.s)
        np.testing.assert_allclose(np.linalg.norm(found, axis=-1), expected, rtol=1e-4, atol=1e-6)


def test_rows_mixed_from_v_have_its_covariance(bases):
    """Rows of V that span a plane give rows in that plane; Gaussian rows leave it."""
    basis = next(iter(bases.values()))
    flat = basis.replace(v=basis.v.at[..., 2:].set(0))
    rows = {"kind": basis.v[:2]}
    mixed, free = (ablation_inputs.gaussian_rows({"kind": flat}, rows, mix)["kind"] for mix in (True, False))
    assert float(jnp.abs(mixed[..., 2:]).max()) == 0
    assert float(jnp.abs(free[..., 2:]).max()) > 1e-3


def test_a_line_of_points_has_rank_correlation_one():
    points = np.arange(9.0)[:, None] * np.ones((1, 4))
    order = continuity.shortest_path(continuity.distances(points))
    assert abs(continuity.spearman(order)) == pytest.approx(1)
    shuffled = np.random.default_rng(0).permutation(9)
    assert points[shuffled][continuity.shortest_path(continuity.distances(points[shuffled]))][:, 0].tolist() in (
        list(range(9)),
        list(range(8, -1, -1)),
    )
    settings = continuity.Settings(shuffles=200, perplexity=3)
    found = continuity.continuity(points + 1e-3 * np.eye(9, 4), continuity.tsne(points, 3), settings)
    assert min(found["path"], found["tsne"], found["first"]) > 0.95
    assert found["null_mean"] < 0.4 < found["null_95"]


def test_affinities_have_the_perplexity_asked_for():
    squares = continuity.distances(np.random.default_rng(0).standard_normal((12, 5))) ** 2
    joint = continuity.affinities(squares, 4.0)
    assert joint.sum() == pytest.approx(1)
    np.testing.assert_allclose(joint, joint.T)
    # Each row before symmetrising sums to one: rows and columns of the joint together sum to (1 + column) / 2n.
    assert joint.sum(axis=1).min() > 1 / 24
