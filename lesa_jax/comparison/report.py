"""What a comparison of growth methods leaves for its reader: table.json, table.md, pictures and report.html.

The same comparison gives the same files. A number that was not measured is null or a dash, never a guess.
"""

from pathlib import Path

from lesa_jax.base.files import write_json, write_text
from lesa_jax.comparison.page import page
from lesa_jax.comparison.pictures import draw_curves, draw_forgetting, draw_initial
from lesa_jax.comparison.result import Comparison
from lesa_jax.comparison.statistics import summarise
from lesa_jax.comparison.table import markdown, records

TABLE_JSON, TABLE_MD, REPORT = "table.json", "table.md", "report.html"
INITIAL, CURVES, FORGETTING = "initial.png", "curves.png", "forgetting.png"


def write_report(comparison: Comparison, folder: Path) -> None:
    """Writes table.json, table.md, report.html and pictures into a folder: initial.png, curves.png if something was
    trained, and forgetting.png if what was known was measured, too.

    Args:
      comparison: with base as its first outcome.
      folder: made where it is missing; files of these names are replaced, and a picture that is no longer true goes.
    """
    statistics = summarise(comparison)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / TABLE_JSON, records(statistics))
    write_text(folder / TABLE_MD, markdown(statistics))
    draw_initial(statistics, folder / INITIAL)
    for name, draw, there in (
        (CURVES, draw_curves, statistics.is_trained),
        (FORGETTING, draw_forgetting, bool(statistics.forgetting.training)),
    ):
        if there:
            draw(statistics, folder / name)
        else:
            (folder / name).unlink(missing_ok=True)
    write_text(folder / REPORT, page(statistics))
