"""Effective depth, by made-up layers."""

from dataclasses import fields

import numpy as np
import pytest

from lesa_jax.analysis.effective import (
    by_cosine,
    by_divergence,
    by_last_divergence,
    by_overlap,
    depth_score,
    weighted_layer,
)
from lesa_jax.analysis.layers import LayerMeasures

PLAIN = {field.name: 0.0 for field in fields(LayerMeasures)}


def layers(**values):
    count = len(next(iter(values.values())))
    return [LayerMeasures(**(PLAIN | {name: row[i] for name, row in values.items()})) for i in range(count)]


def test_by_divergence():
    falling = layers(lens_kl=[8.0, 7.0, 3.0, 5.0, 1.0, 0.2])
    assert by_divergence(falling) == 2  # a dip
    assert by_last_divergence(falling) == 4
    assert by_divergence(layers(lens_kl=[1.0, 1.0])) == by_last_divergence(layers(lens_kl=[1.0, 1.0])) == 2


def test_by_overlap():
    assert by_overlap(layers(lens_overlap=[0.0, 0.3, 0.31, 0.2, 0.9])) == 2
    assert by_overlap(layers(lens_overlap=[0.0, 0.1])) == 2


def test_by_cosine():
    up = [0.3, -0.6, -0.3, 0.6, -0.1, 0.2]
    turning = layers(attention_cosine=up, feed_forward_cosine=up, layer_cosine=up)
    assert by_cosine(turning) == 4
    always = [0.1, 0.2]
    assert by_cosine(layers(attention_cosine=always, feed_forward_cosine=always, layer_cosine=always)) is None


def test_depth_score_is_the_mean_layer_by_its_effects():
    effects = np.zeros((4, 4))
    effects[1, 2:] = 1.0  # 1 for each of two later layers
    effects[2, 3] = 3.0
    assert depth_score(effects) == pytest.approx((1 * 1 + 2 * 3) / 4)
    assert depth_score(np.zeros((3, 3))) is None
    assert weighted_layer(np.array([0.0, 1.0, 1.0])) == 1.5
