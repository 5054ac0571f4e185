"""Files that go along with the weights: tokenizer, generation config, chat template, licence, custom code, notes."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from lesa_jax.base.files import inside

# Weights in any format, and what this program writes itself.
WEIGHT_SUFFIXES = {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".onnx", ".msgpack", ".h5", ".npz", ".pkl"}
OWN = {"config.json", "growth.json", "README.md"}
LARGEST = 64 << 20  # bytes; the largest tokenizers (with 250,000 tokens) stay below


def files_to_carry(folder: Path) -> list[Path]:
    """The folder's own files that are neither weights, nor hidden, nor rewritten, nor too large to be of interest."""
    return [
        inside(path)
        for path in sorted(folder.iterdir())
        if path.is_file()
        and path.name not in OWN
        and not path.name.startswith(".")
        and not path.name.endswith(".index.json")
        and path.suffix not in WEIGHT_SUFFIXES
        and path.stat().st_size <= LARGEST
    ]


def carry(files: Iterable[Path], output: Path) -> None:
    """Copies them into a folder that is yet to be published, which sees to it that they are on the disk."""
    for file in files:
        shutil.copyfile(file, output / file.name)
