"""The small trained model that the commands use by default, and the text that it is judged on.

The model (`MODEL_DIRECTORY`) was trained by `experiments/train_demo.py` on the source text of Python's standard
library, which is read from the running interpreter. What it is judged on is kept here, so that perplexities are the
same on every Python: modules of Python 3.11.7, under the licence beside them.
"""

import sysconfig
from pathlib import Path

from lesa_jax.base.errors import InputError

NAME, TEXT_NAME = "the lesa_jax demo model", "its own held-out text"  # what outputs call their source
MODEL_DIRECTORY = Path(__file__).parent / "model"
EVALUATION_TEXT = Path(__file__).parent / "text" / "standard_library.txt"

# What that text is made of, and kept out of the training text; about 250 kB.
HELD_OUT_MODULES = ("calendar.py", "configparser.py", "difflib.py", "heapq.py", "statistics.py", "textwrap.py")

# Folders that are no library source: tests, tables, demonstrations, and whatever else is installed.
EXCLUDED_FOLDERS = frozenset(
    ("test", "tests", "idlelib", "site-packages", "dist-packages", "pydoc_data", "encodings", "turtledemo")
)


def named(model: str | None) -> str:
    """What a command's --model names: without one, the demo model."""
    return str(MODEL_DIRECTORY) if model is None else model


def standard_library() -> Path:
    """The folder of the running interpreter's standard library."""
    return Path(sysconfig.get_path("stdlib"))


def evaluation_text() -> str:
    """The held-out modules, joined by blank lines."""
    return EVALUATION_TEXT.read_text(encoding="utf-8")


def training_texts() -> list[str]:
    """Every other module of the running interpreter's standard library, one string a file, in the order of their paths.

    Raises InputError where the standard library does not lie on disk as source.
    """
    root = standard_library()
    files = sorted(root.rglob("*.py"), key=lambda file: file.relative_to(root).as_posix())
    kept = [file for file in files if _is_training_file(file.relative_to(root))]
    return [_source(file) for file in kept]


def _is_training_file(relative: Path) -> bool:
    return relative.as_posix() not in HELD_OUT_MODULES and not EXCLUDED_FOLDERS.intersection(relative.parts)


def _source(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise InputError(
            f"{file}: the standard library's source is not readable ({error.strerror}); name a text with --text"
        ) from None
