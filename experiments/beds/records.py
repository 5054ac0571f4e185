"""A CSV file of finished runs, to which one is added as soon as it is done."""

import csv
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

Row = TypeVar("Row")


def recorded(file: Path, kind: type[Row]) -> list[Row]:
    """The rows in the file, of a dataclass whose fields are texts and numbers; none where there is no file."""
    if not file.exists():
        return []
    types = get_type_hints(kind)
    with file.open(newline="") as text:
        return [kind(**{name: types[name](cell) for name, cell in row.items()}) for row in csv.DictReader(text)]


def without_results(row: Any, run: type[Row]) -> Row:
    """What was run: the fields of a row that its run has, too."""
    return run(**{field.name: getattr(row, field.name) for field in fields(run)})  # pyright: ignore[reportArgumentType]


def append(file: Path, row: Any) -> None:
    """Adds a row. Of floats it keeps six digits."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = not file.exists()
    with file.open("a", newline="") as text:
        writer = csv.DictWriter(text, [field.name for field in fields(row)], lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(
            {name: f"{cell:.6g}" if isinstance(cell, float) else cell for name, cell in asdict(row).items()}
        )
