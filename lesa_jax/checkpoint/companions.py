"""Files that go along with the weights: tokenizer, generation config, chat templates, licence, custom code, notes."""

import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from lesa_jax.base.files import inside
from lesa_jax.base.units import format_bytes
from lesa_jax.checkpoint.format import INDEX, WEIGHTS
from lesa_jax.checkpoint.reader import weight_files

# Weights in any format, and what this program writes itself.
WEIGHT_SUFFIXES = {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".onnx", ".msgpack", ".h5", ".npz", ".pkl"}
OWN = {"config.json", "growth.json", "README.md"}
ADAPTER = re.compile(r"adapter_(config\.json|model\..*)")
TOKENIZER = re.compile(
    r"(tokenizer|vocab|merges|added_tokens|special_tokens|spiece|sentencepiece|tekken).*|.*\.tiktoken"
)
TEMPLATES = "additional_chat_templates"  # the one subfolder that transformers reads with a tokenizer
LARGEST = 64 << 20  # bytes of a file that is not the tokenizer's


def files_to_carry(folder: Path) -> list[Path]:
    """The folder's own files that go along, those in its additional_chat_templates/ among them.

    Raises InputError for one that links out of the folder.
    """
    files = [inside(path, folder) for path in _entries(folder) if path.is_file() and _reason(path) is None]
    templates = folder / TEMPLATES
    if templates.is_dir():
        inside(templates, folder)
        files += [inside(path, folder) for path in _entries(templates) if path.is_file()]
    return files


def left_behind(folder: Path) -> list[str]:
    """What does not go along, each by its name with the reason; neither what is hidden nor what is written anew.

    Raises InputError where the folder's index of weights is damaged.
    """
    weights = weight_files(folder) if any((folder / name).exists() for name in (WEIGHTS, INDEX)) else {}
    grown = {path.name for path in weights} | {INDEX}
    reasons = {path.name: _reason(path) for path in _entries(folder) if path.name not in grown | OWN}
    if (folder / TEMPLATES).is_dir():
        nested = [path for path in _entries(folder / TEMPLATES) if not path.is_file()]
        reasons |= {f"{TEMPLATES}/{path.name}": "not a file" for path in nested}
    return [f"{name} ({reason})" for name, reason in reasons.items() if reason is not None]


def carry(files: Iterable[Path], source: Path, output: Path) -> None:
    """Copies files of the folder `source` into one that is yet to be published, which sees to it that they are on the
    disk."""
    for file in files:
        place = output / file.relative_to(source)
        place.parent.mkdir(exist_ok=True)
        shutil.copyfile(file, place)


def _entries(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.iterdir()) if not path.name.startswith("."))


def _reason(path: Path) -> str | None:
    """Why what lies in a model's folder does not go along; None if it does."""
    if path.name in OWN:
        return "written anew"
    if path.is_dir():
        return None if path.name == TEMPLATES else "a subfolder"
    if not path.is_file():
        return f"a link to {os.readlink(path)}, which is not there" if path.is_symlink() else "not a file"
    if ADAPTER.fullmatch(path.name):
        return "of an adapter, which fits the original only; merge it into the weights first"
    if path.suffix in WEIGHT_SUFFIXES or path.name.endswith(".index.json"):
        return f"weights, or state of training, that {WEIGHTS} and {INDEX} do not name"
    size = path.stat().st_size
    if size > LARGEST and not TOKENIZER.fullmatch(path.name):
        return f"{format_bytes(size)}; files that are not the tokenizer's go along up to {format_bytes(LARGEST)}"
    return None
