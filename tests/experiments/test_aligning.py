"""Telling layers alike changes no function, and finds a layer again that was told otherwise."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from lesa_jax.models.decoder import logits
from lesa_jax.models.load import load_model
from lesa_jax.models.parts import layers_of
from tests.support.tiny import tiny

# experiments/ is no package: its scripts are run, and import one another by name.
sys.path.insert(0, str(Path(__file__).parents[2] / "experiments" / "ablation"))

import ablation
import aligning


def model():
    params, config = load_model(tiny("llama"))
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    return params, config, ablation.weight_kinds(layers_of(params, config))


def test_aligned_layers_compute_what_they_did_and_are_nearer_to_the_one_below():
    params, config, kinds = model()
    aligned = aligning.align(kinds, config)
    flat = flatten_dict(params, sep=".")
    flat |= {f"model.layers.{kind}.weight": jnp.asarray(w) for kind, w in aligned.items()}
    tokens = jnp.arange(24)[None] % config.vocab_size
    np.testing.assert_allclose(
        logits(unflatten_dict(flat, sep="."), tokens, config), logits(params, tokens, config), atol=1e-5
    )
    for kind, w in kinds.items():
        np.testing.assert_array_equal(aligned[kind][0], w[0])
        assert cosine(aligned[kind]) > cosine(np.asarray(w)) + 0.02, kind


def test_a_layer_told_otherwise_is_found_again():
    """Neurons in another order and of other signs, heads in another order, values in another basis, pairs turned."""
    _, config, kinds = model()
    layer = {kind: np.asarray(w[0]) for kind, w in kinds.items()}
    rng = np.random.default_rng(0)
    other = told_otherwise(layer, config, rng)
    assert all(np.linalg.norm(other[kind] - w) > 0.5 * np.linalg.norm(w) for kind, w in layer.items())
    twice = {kind: np.stack([w, other[kind]]) for kind, w in layer.items()}
    for kind, w in aligning.align(twice, config.of_layers([0, 1])).items():
        np.testing.assert_allclose(w[1], w[0], atol=1e-5, err_msg=kind)


def told_otherwise(layer, config, rng):
    heads = aligning.in_heads(layer, config)
    groups = rng.permutation(config.num_kv_heads)
    heads = {name: w[groups].copy() for name, w in heads.items()}
    for group in range(config.num_kv_heads):
        order = rng.permutation(len(heads["q"][group]))
        by = rng.uniform(-3, 3, config.head_dim // 2).astype(np.float32)
        rotation = np.linalg.qr(rng.standard_normal((config.head_dim, config.head_dim)))[0].astype(np.float32)
        heads["q"][group], heads["o"][group] = heads["q"][group][order], heads["o"][group][order]
        for name in "qk":
            heads[name][group] = aligning.turn(heads[name][group], by)
        for name in "vo":
            heads[name][group] = rotation @ heads[name][group]
    gate, up, down = (layer[kind] for kind in (aligning.GATE, aligning.UP, aligning.DOWN))
    order, sign = rng.permutation(len(gate)), rng.choice(np.float32([-1, 1]), len(gate))
    told = {aligning.GATE: gate[order], aligning.UP: up[order] * sign[:, None], aligning.DOWN: down[:, order] * sign}
    return layer | aligning.in_matrices(heads) | told


def cosine(w):
    pairs = zip(w[:-1].reshape(len(w) - 1, -1), w[1:].reshape(len(w) - 1, -1), strict=True)
    return np.mean([a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairs])
