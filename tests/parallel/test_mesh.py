"""The mesh, as a user writes it."""

import pytest

from lesa_jax.base.errors import InputError
from lesa_jax.parallel.mesh import parse_mesh


@pytest.mark.parametrize(
    ("text", "devices", "sizes"),
    [
        ("data=1,fsdp=-1,tensor=1", 8, {"data": 1, "fsdp": 8, "expert": 1, "tensor": 1}),
        ("tensor=2,data=-1", 8, {"data": 4, "fsdp": 1, "expert": 1, "tensor": 2}),
        ("fsdp=4", 4, {"data": 1, "fsdp": 4, "expert": 1, "tensor": 1}),
        ("data=1,fsdp=2,expert=4", 8, {"data": 1, "fsdp": 2, "expert": 4, "tensor": 1}),
    ],
)
def test_mesh_is_read(text, devices, sizes):
    assert parse_mesh(text, devices) == sizes


@pytest.mark.parametrize("text", ["fsdp=3", "fsdp=-1,data=-1", "model=8", "fsdp", "fsdp=0", "tensor=2"])
def test_a_mesh_that_is_none_is_refused(text):
    with pytest.raises(InputError, match=r"^--mesh"):
        parse_mesh(text, 8)
