"""What layers of a scan have in common and what differs."""

import json
from dataclasses import replace

import numpy as np
import pytest

from lesa_jax import demo
from lesa_jax.models.config import read_config
from lesa_jax.models.views import UNLIMITED, Arrays, View, view, views

LLAMA = json.loads((demo.MODEL_DIRECTORY / "config.json").read_text())


def model(windows, rotations):
    return replace(read_config(LLAMA), num_layers=len(windows), windows=windows, rotations=rotations)


def test_what_layers_have_in_common_is_no_array():
    config = model((None, None, 8, 8), (0, 0, 0, 1))
    assert views(config, (0, 1)) == (View(None, 0), Arrays())
    assert views(config, (2,)) == (View(8, 0), Arrays())
    assert views(config, ()) == (View(), Arrays())


def test_what_differs_is_an_entry_for_each_layer():
    config = model((None, None, 8, 8), (0, 0, 0, 1))
    shared, arrays = views(config, range(1, 4))
    assert shared == View()
    np.testing.assert_array_equal(arrays.window, [UNLIMITED, 8, 8])
    np.testing.assert_array_equal(arrays.rotation, [0, 0, 1])
    assert views(config, (1, 2))[1].rotation is None


@pytest.mark.parametrize("own", [Arrays(), Arrays(window=5), Arrays(rotation=1), Arrays(5, 1)])
def test_a_layers_own_entries_win(own):
    assert view(View(3, 0), own) == View(3 if own.window is None else 5, 0 if own.rotation is None else 1)
