"""Run by tests/training/test_expert_axis.py in a process with eight devices: losses and gradients on meshes.

    python -m tests.support.expert_axis CHECKPOINT MESH...

Prints for each mesh how far losses and gradients are from those of one device, as JSON.
"""

import functools
import json
import sys
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from lesa_jax.checkpoint.reader import open_checkpoint
from lesa_jax.models.config import read_config
from lesa_jax.parallel.mesh import AXES, BATCH, make_mesh, parse_mesh
from lesa_jax.training.parameters import choose, load_model_leaves, make_leaves
from lesa_jax.training.sharding import leaf_shardings
from lesa_jax.training.step import Program, mean_gradient
from tests.support.packed import packed


def main(folder: Path, meshes: list[str]) -> None:
    checkpoint = open_checkpoint(folder)
    config = read_config(checkpoint.config)
    segments, leaves = make_leaves(config, choose("all", config, None))
    program = Program(config, segments, "float32", "block", True, None, balance=0.01, z=0.001)
    step = jax.jit(functools.partial(mean_gradient, program=program))
    batch = packed(config.vocab_size, batch=8)

    def gradient(mesh: Mesh) -> list[np.ndarray]:
        trees = load_model_leaves(checkpoint, leaves, leaf_shardings(leaves, mesh), "float32")
        placed = jax.tree.map(lambda x: jax.device_put(x, NamedSharding(mesh, P(None, BATCH))), batch)
        return [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(step(*trees, placed))]

    expected = gradient(Mesh(np.asarray(jax.devices()[:1]).reshape([1] * len(AXES)), AXES))
    found = {}
    for mesh in meshes:
        pairs = zip(gradient(make_mesh(parse_mesh(mesh, 8))), expected, strict=True)
        found[mesh] = max(np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-3) for a, b in pairs)
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
