"""Pictures on the disk."""

import struct
from pathlib import Path


def png_size(path: Path) -> tuple[int, int]:
    """Width and height of a PNG, which is whole."""
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert data[-8:-4] == b"IEND"
    width, height = struct.unpack(">II", data[16:24])
    return width, height
