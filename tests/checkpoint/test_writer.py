"""Writing: files that others can read, and nothing half-written under the final name."""

import json
import os
import resource

import numpy as np
import pytest
from safetensors.numpy import load_file

from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.format import TensorSpec
from lesa_jax.checkpoint.reader import open_checkpoint, read
from lesa_jax.checkpoint.writer import TensorWriter, lay_out, rewrite, write_index

KINDS = {f"t.{i}": TensorSpec((i + 1, 5), "F32") for i in range(7)} | {
    "scalar": TensorSpec((), "F32"),
    "empty": TensorSpec((0, 4), "F32"),
}
ARRAYS = {name: np.random.default_rng(i).random(kind.shape, np.float32) for i, (name, kind) in enumerate(KINDS.items())}


def write_all(folder, layout, names):
    writer = TensorWriter(folder, layout)
    for name in names:
        writer.write(name, ARRAYS[name].tobytes())
    writer.close()
    write_index(folder, layout)


@pytest.mark.parametrize("shard_size", [1, 200, 10_000])
def test_any_order_of_writing_gives_the_same_readable_files(tmp_path, shard_size):
    layout = lay_out(KINDS, shard_size)
    contents = []
    for run, names in enumerate((list(KINDS), list(KINDS)[::-1])):
        folder = tmp_path / str(run)
        folder.mkdir()
        write_all(folder, layout, names)
        contents.append({file.name: file.read_bytes() for file in folder.iterdir()})
        loaded = {k: v for file in folder.glob("*.safetensors") for k, v in load_file(file).items()}
        assert loaded.keys() == KINDS.keys()
        for name, array in loaded.items():
            np.testing.assert_array_equal(array, ARRAYS[name])
    assert contents[0] == contents[1]


def test_shards_stay_below_the_limit_and_the_index_adds_up(tmp_path):
    layout = lay_out(KINDS, 200)
    write_all(tmp_path, layout, KINDS)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(array.nbytes for array in ARRAYS.values())
    assert set(index["weight_map"]) == set(KINDS)
    for file in set(index["weight_map"].values()):
        assert sum(array.nbytes for array in load_file(tmp_path / file).values()) <= 200
    (tmp_path / "config.json").write_text("{}")
    np.testing.assert_array_equal(read(open_checkpoint(tmp_path), "t.3"), ARRAYS["t.3"])


def test_a_forgotten_tensor_is_an_error(tmp_path):
    writer = TensorWriter(tmp_path, lay_out(KINDS, 10_000))
    writer.write("t.0", ARRAYS["t.0"].tobytes())
    with pytest.raises(ValueError, match="written twice"):
        writer.write("t.0", ARRAYS["t.0"].tobytes())
    with pytest.raises(ValueError, match="never written"):
        writer.close()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("dtype", "stored"), [("F16", np.float16), ("F32", np.float32), ("F64", np.float64)])
def test_no_number_that_is_none_is_ever_written(tmp_path, bad, dtype, stored):
    layout = lay_out({"t": TensorSpec((3, 5), dtype)}, 10_000)
    array = np.ones((3, 5), stored)
    TensorWriter(tmp_path, layout).write("t", array)
    array[2, 4] = bad
    (tmp_path / "model.safetensors").unlink()
    writer = TensorWriter(tmp_path, layout)
    with pytest.raises(InputError, match=rf"^t: not finite in {dtype}"):
        writer.write("t", array)
    assert writer.missing == {"t": array.nbytes}


def test_a_tensor_may_come_in_pieces(tmp_path):
    """Columns of a matrix, as parts of a fused one; each byte once, and all of them."""
    layout = lay_out({"t": TensorSpec((3, 4), "F32")}, 10_000)
    writer, whole = TensorWriter(tmp_path, layout), np.arange(12, dtype=np.float32).reshape(3, 4)
    for columns in (slice(2, 4), slice(0, 2)):
        starts = [4 * (4 * row + columns.start) for row in range(3)]
        with pytest.raises(ValueError, match="never written"):
            writer.close()
        writer.write("t", np.ascontiguousarray(whole[:, columns]), starts)
    with pytest.raises(ValueError, match="written twice"):
        writer.write("t", np.ascontiguousarray(whole[:, :2]), starts)
    writer.close()
    np.testing.assert_array_equal(load_file(tmp_path / "model.safetensors")["t"], whole)


def test_a_change_that_overflows_the_stored_dtype_is_refused(tmp_path):
    layout = lay_out({"t": TensorSpec((4,), "F16")}, 10_000)
    writer = TensorWriter(tmp_path, layout)
    writer.write("t", np.full(4, 1000, np.float16))
    writer.close()
    rewrite(tmp_path, layout, "t", lambda x: 60.0 * x.astype(np.float64))
    with pytest.raises(InputError, match="t: not finite in F16"):
        rewrite(tmp_path, layout, "t", lambda x: 60.0 * x.astype(np.float64))
    assert (load_file(tmp_path / "model.safetensors")["t"] == 60000).all()


def test_more_shards_than_a_process_may_have_open(tmp_path):
    layout = lay_out({f"t.{i}": TensorSpec((2,), "F32") for i in range(300)}, 1)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 20, limits[1]))
    try:
        writer = TensorWriter(tmp_path, layout)
        for i in range(300):
            writer.write(f"t.{i}", np.full(2, i, np.float32))
        writer.close()
        write_index(tmp_path, layout)
        (tmp_path / "config.json").write_text("{}")
        assert read(open_checkpoint(tmp_path), "t.299").tolist() == [299, 299]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
