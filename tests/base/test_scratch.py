"""Arrays in memory and in nameless files: the same to whoever fills and reads them."""

import errno
import gc
import os
from pathlib import Path

import numpy as np
import pytest

from lesa_jax.base.errors import InputError
from lesa_jax.base.scratch import RowFile, Scratch

SHAPE = (3, 50, 7)
BLOCKS = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)


def filled(room: Scratch):
    rows = room.rows(SHAPE)
    for number, block in enumerate(BLOCKS):
        rows[number] = block
    return rows


def test_rows_in_a_file_are_what_was_put_there(tmp_path):
    rows = filled(Scratch(tmp_path, BLOCKS.nbytes - 1))
    assert isinstance(rows, RowFile)
    np.testing.assert_array_equal(np.stack([rows[number] for number in range(3)]), BLOCKS)
    wanted = np.random.default_rng(1).integers(0, 150, (4, 5, 2))
    out = np.zeros((4, 5, 2, 7), np.float32)
    rows.take(wanted, out)
    np.testing.assert_array_equal(out, BLOCKS.reshape(150, 7)[wanted])
    assert not list(tmp_path.iterdir())  # nothing to be left behind


def test_what_fits_is_an_array_and_gives_its_room_back(tmp_path):
    room = Scratch(tmp_path, BLOCKS.nbytes)
    rows = filled(room)
    assert isinstance(rows, np.ndarray)
    assert isinstance(room.rows(SHAPE), RowFile)
    mapped = room.array(SHAPE, np.float16)
    assert isinstance(mapped, np.memmap)
    mapped[:] = BLOCKS
    np.testing.assert_array_equal(mapped, BLOCKS.astype(np.float16))
    view = rows[1]
    del rows
    gc.collect()
    assert isinstance(room.rows(SHAPE), RowFile)  # a view keeps the whole array
    del view
    gc.collect()
    assert isinstance(room.rows(SHAPE), np.ndarray)


def test_files_are_closed_with_their_arrays(tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    rows, mapped = Scratch(tmp_path, 0).rows(SHAPE), Scratch(tmp_path, 0).array(SHAPE, np.float32)
    del rows, mapped
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


def test_without_nameless_files_a_name_is_taken_back_at_once(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "O_TMPFILE")
    np.testing.assert_array_equal(filled(Scratch(tmp_path, 0))[2], BLOCKS[2])
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(InputError, match=r"no room for 0.00 GB of scratch \(No space left on device\).*--memory"):
        Scratch(Path(tmp_path), 0).rows(SHAPE)
