"""A saved state comes back as it was saved, or not at all."""

import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from lesa_jax.base.errors import InputError
from lesa_jax.parallel.mesh import make_mesh
from lesa_jax.training.checkpoints import Checkpoints
from lesa_jax.training.checksums import checksum, checksums
from lesa_jax.training.state import TrainState
from tests.support.trees import MESH

FACTS = {"identity": "x", "loader": {"rows": 3, "batches": 4}, "first_eval": 6.289123456, "last_eval": None}


def some_state() -> TrainState:
    rng = np.random.default_rng(0)
    params = {"a": jnp.asarray(rng.normal(size=(30, 40)), jnp.float32), "b": {"c": jnp.ones(5000)}}
    return TrainState(jnp.int32(4), params, (jnp.zeros((30, 40)),), jnp.array(True))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of steps 2 and 4."""
    folder = tmp_path_factory.mktemp("saved") / "checkpoints"
    checkpoints = Checkpoints(folder, 2, make_mesh(MESH))
    for step in (2, 4):
        checkpoints.save(some_state(), step, FACTS)
    checkpoints.wait()
    checkpoints.close()
    return folder


def restored(folder: Path) -> tuple[TrainState, dict]:
    mesh = make_mesh(MESH)
    everywhere = NamedSharding(mesh, P())
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), some_state())
    checkpoints = Checkpoints(folder, 2, mesh)
    try:
        facts = checkpoints.facts()
        return checkpoints.restore(abstract, facts), facts
    finally:
        checkpoints.close()


def assert_as_saved(folder: Path) -> None:
    state, facts = restored(folder)
    jax.tree.map(np.testing.assert_array_equal, state, some_state())
    assert FACTS.items() <= facts.items()


def flipped(share: float) -> Callable[[bytes], bytes]:
    """A bit is another one, so far into the file."""

    def flip(data: bytes) -> bytes:
        place = int(share * (len(data) - 1))
        return data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :]

    return flip


@pytest.mark.parametrize(
    "damage",
    [
        flipped(0.5),
        *(pytest.param(flipped(share), marks=pytest.mark.slow) for share in (0, 0.25, 0.75, 1)),
        pytest.param(lambda data: data[: len(data) // 2], marks=pytest.mark.slow),
        pytest.param(lambda data: b"", marks=pytest.mark.slow),
        pytest.param(None, marks=pytest.mark.slow),  # no file
    ],
)
def test_whatever_is_damaged_is_refused_in_one_line_or_makes_no_difference(saved, tmp_path, damage):
    assert_as_saved(saved)
    refused = set()
    for path in sorted(path for path in (saved / "4").rglob("*") if path.is_file()):
        name, folder = path.relative_to(saved), tmp_path / "checkpoints"
        shutil.copytree(saved, folder)
        (folder / name).unlink()
        if damage is not None:
            (folder / name).write_bytes(damage(path.read_bytes()))
        refusal = refusal_of(folder)
        if refusal is not None:
            assert refusal.startswith(f"{folder}/4: cannot be restored (")
            assert "delete this folder to go on from the checkpoint before" in refusal
            assert "\n" not in refusal
            refused.add(name.parts[1])
        shutil.rmtree(folder)
    assert "state" in refused


def refusal_of(folder: Path) -> str | None:
    """Why it is refused; None if it is as it was saved."""
    try:
        assert_as_saved(folder)
    except InputError as error:
        return str(error)
    return None


def test_without_the_damaged_one_the_checkpoint_before_is_there(saved, tmp_path):
    folder = tmp_path / "checkpoints"
    shutil.copytree(saved, folder)
    shutil.rmtree(folder / "4")
    assert_as_saved(folder)


def test_numbers_that_orbax_takes_for_good_are_not(saved, tmp_path, monkeypatch):
    """As when a file's own checksum fits its changed content."""
    state = some_state()
    state.params["a"] = state.params["a"].at[7, 9].add(1e-3)
    checkpoints = Checkpoints(saved, 2, make_mesh(MESH))
    monkeypatch.setattr(checkpoints.orbax, "load", lambda step, abstract: state)
    with pytest.raises(InputError, match=r"params\['a'\] is not what was saved"):
        checkpoints.restore(state, checkpoints.facts())
    monkeypatch.undo()
    checkpoints.close()


@pytest.mark.parametrize("name", ["checkpoints", "checkpoints/6"])
def test_a_file_in_the_place_of_a_folder_is_named(saved, tmp_path, name):
    if "/" in name:
        shutil.copytree(saved, tmp_path / "checkpoints")
    (tmp_path / name).write_text("x")
    with pytest.raises(InputError, match="checkpoints") as caught:
        restored(tmp_path / "checkpoints")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int32, jnp.uint8])
def test_every_change_of_an_element_changes_a_checksum(dtype):
    x = np.arange(24).reshape(4, 6).astype(dtype)
    bits, unsigned = 8 * x.dtype.itemsize, np.dtype(f"u{x.dtype.itemsize}")
    seen = {tuple(checksum(jnp.asarray(x)).tolist())}
    for place in np.ndindex(x.shape):
        for bit in range(bits):
            changed = x.copy()
            changed.view(unsigned)[place] ^= unsigned.type(1 << bit)
            seen.add(tuple(checksum(jnp.asarray(changed)).tolist()))
    assert len(seen) == 1 + 24 * bits
    assert tuple(checksum(jnp.asarray(x[::-1])).tolist()) not in seen


def test_checksums_are_by_place_and_of_every_kind_of_number():
    found = checksums(some_state(), make_mesh(MESH))
    assert list(found) == [".step", ".params['a']", ".params['b']['c']", ".optimizer[0]", ".sound"]
    assert all(0 <= number < 2**32 for pair in found.values() for number in pair)
