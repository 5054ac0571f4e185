"""What the tests of training steps share: plans, a tiny model as two trees, and its tensors by name."""

import numpy as np
from flax.traverse_util import flatten_dict

from lesa_jax.checkpoint.reader import open_checkpoint
from lesa_jax.families.model import ModelConfig
from lesa_jax.models.config import read_config
from lesa_jax.models.parts import output_tensor
from lesa_jax.parallel.mesh import make_mesh
from lesa_jax.planning.placement import insert, make_plan
from lesa_jax.planning.plan import Plan
from lesa_jax.training.optimizer import Optimizer
from lesa_jax.training.parameters import choose, load_model_leaves, make_leaves
from lesa_jax.training.settings import OptimizerSettings
from lesa_jax.training.sharding import leaf_shardings
from lesa_jax.training.step import Program
from tests.support.tiny import tiny

OPTIMIZER = Optimizer(OptimizerSettings(learning_rate=1e-2, warmup=1, clip=0.5), steps=8)
MESH = {"data": 1, "fsdp": 1, "expert": 1, "tensor": 1}
PLANS = {
    "top": make_plan(4, "lesa", layers=6),  # tiny models have 6 layers
    "irregular": insert(3, [0, 1]),
    "stacked": make_plan(4, "solar", layers=6),
}


def pieces(family: str, train: str, plan: Plan | None, remat: str = "none", dtype: str = "float32"):
    checkpoint = open_checkpoint(tiny(family))
    config = read_config(checkpoint.config)
    trained = choose(train, config, plan)
    segments, leaves = make_leaves(config, trained)
    shardings = leaf_shardings(leaves, make_mesh(MESH))
    trees = load_model_leaves(checkpoint, leaves, shardings, dtype)
    program = Program(config, segments, dtype, remat, output_tensor(config) in trained)
    return trees, program, leaves, shardings, trained


def by_name(tree, leaves) -> dict[str, np.ndarray]:
    arrays = flatten_dict(tree)
    tensors = {}
    for leaf in leaves:
        if leaf.path in arrays:
            tensors |= leaf.rows(np.asarray(arrays[leaf.path]))
    return tensors


def full_by_name(tree, config: ModelConfig) -> dict[str, np.ndarray]:
    tensors = {}
    for path, array in flatten_dict(tree, sep=".").items():
        if path.startswith("model.layers."):
            kind = path.removeprefix("model.layers.")
            tensors |= {f"model.layers.{i}.{kind}": np.asarray(row) for i, row in enumerate(array)}
        else:
            tensors[path] = np.asarray(array)
    return tensors
