"""Training steps of a real model's shape on this device, with random weights made there: nothing depends on the values.

Run by `device.py`; prints one JSON line for each batch size that was tried.
"""

import json
import statistics
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict
from floors import seconds
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, PRNGKeyArray
from random_llama import random_batch

from lesa_jax.checkpoint.names import Tree
from lesa_jax.families.model import ModelConfig
from lesa_jax.models.config import read_config
from lesa_jax.models.parts import output_tensor
from lesa_jax.parallel.mesh import BATCH, make_mesh
from lesa_jax.planning.placement import make_plan
from lesa_jax.training.cost import state_bytes, step_bytes, token_cost
from lesa_jax.training.optimizer import Optimizer
from lesa_jax.training.parameters import Leaf, choose, make_leaves
from lesa_jax.training.settings import OptimizerSettings, Remat
from lesa_jax.training.sharding import leaf_shardings
from lesa_jax.training.state import first_state, state_shardings
from lesa_jax.training.step import Program, compile_step

DTYPE = "bfloat16"
DEVIATION = 0.02  # of the weights, as transformers initialises them
WARM_UP, COUNTED = 2, 5  # steps
RULE = Optimizer(OptimizerSettings(learning_rate=1e-4), steps=100).rule

LLAMA_1B = {  # meta-llama/Llama-3.2-1B
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    "tie_word_embeddings": True,
}
LLAMA_8B = {  # meta-llama/Meta-Llama-3-8B
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
}
TINY = LLAMA_8B | {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


@dataclass(frozen=True)
class Case:
    """A model grown by half, its new layers on top, and what is trained in it.

    Attributes:
      name: of the model.
      config: its config.json before it is grown.
      train, remat: as `--train` and `--remat`.
      batches: sequences of a device and tokens of each; of a group the first that fits into memory is measured.
    """

    name: str
    config: Mapping[str, Any]
    train: str
    remat: Remat
    batches: tuple[tuple[tuple[int, int], ...], ...]


CASES = {
    "1b_new": Case("Llama-3.2-1B", LLAMA_1B, "new", "block", (((8, 2048), (4, 2048)),)),
    "1b_all": Case("Llama-3.2-1B", LLAMA_1B, "all", "block", (((8, 2048), (4, 2048)),)),
    "8b_new": Case("Llama-3-8B", LLAMA_8B, "new", "full", (((1, 2048),), ((4, 4096), (2, 4096), (1, 4096)))),
    "tiny_new": Case("tiny", TINY, "new", "full", (((1, 32),), ((2, 64),))),
    "tiny_all": Case("tiny", TINY, "all", "block", (((2, 64),),)),
}


@dataclass(frozen=True)
class Measured:
    """Of one batch size; of one device, where there are several.

    Attributes:
      case: what was measured, in words.
      sequences, tokens: of a step, and of each sequence.
      step: seconds of the median step.
      compiling: seconds that the first step took longer.
      flops: of a step by the library's formula, recomputation not counted.
      nbytes: that a step moves at least.
      peak_memory: bytes in use at the most since the process began; None where the device does not say.
      state: bytes of weights, moments and gradient, by the library's formula.
    """

    case: str
    sequences: int
    tokens: int
    step: float
    compiling: float
    flops: float
    nbytes: int
    peak_memory: int | None
    state: int


def grown(case: Case) -> tuple[ModelConfig, tuple[Any, ...], tuple[Leaf, ...], bool]:
    """The deeper model's description, its segments and leaves, and whether its head is trained."""
    plan = make_plan(case.config["num_hidden_layers"], "lesa")
    config = read_config({**case.config, "num_hidden_layers": plan.layers})
    trained = choose(case.train, config, plan)
    return config, *make_leaves(config, trained), output_tensor(config) in trained


def random_trees(leaves: tuple[Leaf, ...], shardings: Mapping[tuple[str, ...], NamedSharding]) -> tuple[Tree, Tree]:
    """`parameters.load_leaves` with weights that never were on a host: the trained tree and the frozen one."""
    trees: dict[bool, dict[tuple[str, ...], Array]] = {True: {}, False: {}}
    for number, leaf in enumerate(leaves):
        dtype = "float32" if leaf.trained else DTYPE
        key = jax.random.fold_in(jax.random.key(0), number)
        array = random_stack(key, leaf.shape, leaf.tensor.fresh, dtype, shardings[leaf.path])
        trees[leaf.trained][leaf.path] = jax.block_until_ready(array)
    return unflatten_dict(trees[True]), unflatten_dict(trees[False])


def random_stack(
    key: PRNGKeyArray, shape: tuple[int, ...], fresh: float | None, dtype: str, sharding: NamedSharding
) -> Array:
    """Random numbers, made slice by slice so that their bits never fill the memory; or the number `fresh`."""
    if fresh is not None:
        return jnp.full(shape, fresh, dtype, device=sharding)
    return jax.jit(_normal, static_argnames=("shape", "dtype"), out_shardings=sharding)(key, shape=shape, dtype=dtype)


def _normal(key: PRNGKeyArray, shape: tuple[int, ...], dtype: str) -> Array:
    keys = jax.random.split(key, shape[0]) if len(shape) > 2 else key[None]
    inside = shape[-2:] if len(shape) > 1 else shape
    return jax.lax.map(lambda key: DEVIATION * jax.random.normal(key, inside, dtype), keys).reshape(shape)


def measure(case: Case, sequences: int, tokens: int) -> Measured:
    """Whole steps of all devices: loss, gradient, clip, AdamW; the library's own program."""
    config, segments, leaves, train_head = grown(case)
    mesh = make_mesh({"data": 1, "fsdp": jax.device_count(), "expert": 1, "tensor": 1})
    shardings = leaf_shardings(leaves, mesh)
    params, frozen = random_trees(leaves, shardings)
    program = Program(config, segments, DTYPE, case.remat, train_head)
    placed = state_shardings(params, shardings, mesh, RULE)
    state = first_state(params, RULE, placed)
    step = compile_step(program, RULE, placed, mesh)
    batch = random_batch(config.vocab_size, sequences * mesh.size, tokens, seed=0)
    batch = jax.device_put(batch, NamedSharding(mesh, P(None, BATCH)))

    def run() -> tuple[Any, ...]:
        nonlocal state
        state, metrics = step(state, frozen, batch, np.float32(1e-4))
        return state, metrics

    taken = [seconds(run) for _ in range(WARM_UP + COUNTED)]
    if not bool(state.sound):
        raise FloatingPointError(f"{case.name}: the loss, the gradient or the update is not finite")
    median = statistics.median(taken[WARM_UP:])
    stats = jax.local_devices()[0].memory_stats() or {}
    layers = f"{case.config['num_hidden_layers']} -> {config.num_layers}"
    return Measured(
        case=f"{case.name}, {layers}, {case.train}, remat {case.remat}",
        sequences=sequences,
        tokens=tokens,
        step=median,
        compiling=taken[0] - median,
        flops=token_cost(config, leaves, tokens).total * sequences * tokens,
        nbytes=round(step_bytes(config, leaves, shardings, DTYPE)),
        peak_memory=stats.get("peak_bytes_in_use"),
        state=state_bytes(leaves, shardings, DTYPE).total,
    )


def measure_first_that_fits(case: Case, batches: tuple[tuple[int, int], ...]) -> None:
    """Prints what was measured, or why not, for each batch size until one fits."""
    for sequences, tokens in batches:
        print(f"{case.name}, {case.train}: {sequences} x {tokens} tokens", file=sys.stderr, flush=True)
        try:
            row = asdict(measure(case, sequences, tokens))
        except jax.errors.JaxRuntimeError as error:
            reason = str(error).split("\n")[0]
            row = {"case": f"{case.name}, {case.train}, {sequences} x {tokens} tokens", "failed": reason}
        print(json.dumps(row), flush=True)
        if "RESOURCE_EXHAUSTED" not in row.get("failed", ""):
            return  # measured; or failed for a reason that a smaller batch has, too


if __name__ == "__main__":
    case = CASES[sys.argv[1]]
    for group in case.batches:
        measure_first_that_fits(case, group)
