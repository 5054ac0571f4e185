"""Pictures are written whole or not at all."""

import pytest
from matplotlib.image import imread

from lesa_jax.reports.figures import open_axes, picture


def test_a_picture_has_the_size_that_was_asked_for(tmp_path):
    with picture(tmp_path / "a.png", 321, 234) as figure:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1])
        open_axes(axes)
        assert not (tmp_path / "a.png").exists()
    assert imread(tmp_path / "a.png").shape[:2] == (234, 321)
    assert b"Software" not in (tmp_path / "a.png").read_bytes()


def test_a_picture_that_fails_leaves_the_earlier_one(tmp_path):
    (tmp_path / "a.png").write_bytes(b"earlier")
    with pytest.raises(ZeroDivisionError), picture(tmp_path / "a.png", 100, 100):
        raise ZeroDivisionError
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.png", b"earlier")]
