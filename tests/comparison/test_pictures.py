"""The pictures: their size, and names that matplotlib must not misread."""

from matplotlib.image import imread

from lesa_jax.comparison.pictures import LABEL_LENGTH, draw_curves, draw_initial, line_style, picture_label
from lesa_jax.comparison.statistics import summarise
from lesa_jax.reports.palette import DASHES, PALETTE
from tests.support.comparisons import grown, statistics, trained


def test_sizes(tmp_path):
    draw_initial(statistics(*(grown(f"m{i}") for i in range(5))), tmp_path / "initial.png")
    assert imread(tmp_path / "initial.png").shape[:2] == (120 + 6 * 32, 1000)
    draw_curves(summarise(trained()), tmp_path / "curves.png")
    assert imread(tmp_path / "curves.png").shape[:2] == (650, 1500)
    assert {path.name for path in tmp_path.iterdir()} == {"initial.png", "curves.png"}


def test_labels_fit_and_are_no_formulas():
    assert picture_label("lesa\n(top)") == "lesa (top)"
    assert picture_label("$a_1$") == r"\$a_1\$"
    assert len(picture_label("x" * 100)) == LABEL_LENGTH
    assert picture_label("x" * 100).endswith("…")


def test_every_line_looks_different():
    count = len(PALETTE) * len(DASHES)
    looks = [line_style(position) for position in range(count + 1)]
    assert len({(look["color"], str(look["linestyle"])) for look in looks}) == count + 1
