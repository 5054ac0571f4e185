"""Experts shared out over devices: the losses of text and of routers, and all gradients, are those of one device."""

import json
import subprocess
import sys

import pytest

from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.reader import open_checkpoint
from lesa_jax.models.config import read_config
from lesa_jax.training.sharding import check_mesh
from tests.support.devices import environment_of
from tests.support.tiny import tiny

MESHES = ["data=1,fsdp=2,expert=4", "fsdp=2,expert=2,tensor=2", "data=2,fsdp=2,tensor=2"]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["mixtral", "qwen2_moe", "granitemoe", "deepseek_v3"])
def test_gradients_on_every_mesh_are_those_of_one_device(family):
    command = [sys.executable, "-m", "tests.support.expert_axis", str(tiny(family)), *MESHES]
    env = environment_of(8)
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.keys() == set(MESHES)
    assert max(found.values()) < 1e-5, found


@pytest.mark.parametrize(
    ("family", "sizes", "message"),
    [
        ("mixtral", {"expert": 8}, "expert=8 does not divide the model's number of experts 12"),
        ("qwen3_moe", {"tensor": 32}, "tensor=32 does not divide"),
        ("llama", {"expert": 2}, "expert=2, but the model has no experts; use fsdp=2"),
    ],
)
def test_a_mesh_must_divide_the_experts(family, sizes, message):
    config = read_config(open_checkpoint(tiny(family)).config)
    with pytest.raises(InputError, match=message):
        check_mesh({"data": 1, "fsdp": 1, "expert": 1, "tensor": 1} | sizes, config, 64)
