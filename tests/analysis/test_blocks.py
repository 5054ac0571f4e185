"""Blocks of layers by Gromov's distance."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from lesa_jax.analysis.blocks import best_blocks, block_distances, nearly_one
from lesa_jax.evaluation.vectors import angles, influences


def turning(*degrees):
    """Streams in a plane, each turned against the one before it; lengths do not count."""
    directions = np.radians(np.cumsum([0, *degrees]))
    lengths = np.arange(1, len(directions) + 1)[:, None, None]
    return jnp.asarray(lengths * np.stack([np.cos(directions), np.sin(directions)], axis=-1)[:, None], jnp.float32)


def test_distances_are_those_of_torch():
    streams = np.random.default_rng(0).standard_normal((7, 3, 16)).astype(np.float32)
    found, x = block_distances(jnp.asarray(streams)), torch.tensor(streams).double()
    assert [len(of_size) for of_size in found] == [6, 5, 4, 3, 2, 1]
    for size, of_size in enumerate(found, 1):
        for first, value in enumerate(of_size):
            cosine = torch.nn.functional.cosine_similarity(x[first], x[first + size], dim=-1)
            assert value == pytest.approx(torch.arccos(cosine).mean().item() / np.pi, abs=1e-5)


def test_a_block_that_turns_back_is_nearly_one():
    """Layers 1 and 2 undo each other, so that a block of three ends nearer to its start than the median layer goes."""
    distances = block_distances(turning(40, 30, -30, 10, 40))
    best = best_blocks(distances)
    assert [(block.first, block.last) for block in best[:3]] == [(3, 3), (1, 2), (1, 3)]
    np.testing.assert_allclose([block.distance for block in best[:3]], [10 / 180, 0, 10 / 180], atol=1e-6)
    assert nearly_one(distances) == best[2]
    assert nearly_one(block_distances(turning(20, 20, 20))) is None


def test_known_directions():
    """The layer that does nothing, turns round, or goes to a right angle; whatever the lengths."""
    x = jnp.asarray([[[3.0, 4.0]]])
    for y, influence, distance in ((x, 0, 0), (-x, 2, 1), (5 * x, 0, 0), (jnp.asarray([[[-8.0, 6.0]]]), 1, 0.5)):
        assert float(influences(x, y)[0, 0]) == pytest.approx(influence, abs=1e-6)
        assert float(angles(x, y)[0, 0]) / np.pi == pytest.approx(distance, abs=1e-6)
    assert float(influences(x, x)[0, 0]) == 0


def test_random_updates_stand_at_right_angles():
    """A random walk: what one layer adds tells nothing of what the next one adds."""
    added = jnp.asarray(np.random.default_rng(0).standard_normal((2, 1, 8, 4096)), jnp.float32)
    np.testing.assert_allclose(np.degrees(angles(*added)), 90, atol=5)
