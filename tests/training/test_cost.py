"""The formula for a step's cost is what XLA counts when nothing is hidden in a loop."""

import jax
import jax.numpy as jnp
import pytest
from flax.traverse_util import unflatten_dict

from lesa_jax.models.config import ModelConfig
from lesa_jax.parallel.mesh import make_mesh
from lesa_jax.planning.placement import make_plan
from lesa_jax.training import cost, parameters
from lesa_jax.training.cost import state_bytes, token_cost
from lesa_jax.training.parameters import choose, make_leaves
from lesa_jax.training.segments import Segment
from lesa_jax.training.sharding import leaf_shardings
from lesa_jax.training.step import Batch, Program, mean_gradient

BATCH, TOKENS = 2, 64
CONFIG = ModelConfig.from_hf(
    {
        "model_type": "llama",
        "vocab_size": 512,
        "hidden_size": 256,
        "intermediate_size": 640,
        "num_hidden_layers": 12,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
    }
)
PLAN = make_plan(8, "lesa", layers=12)


def leaves_of(train: str):
    return make_leaves(CONFIG, choose(train, CONFIG, PLAN))


def counted(train: str, monkeypatch: pytest.MonkeyPatch) -> float:
    """XLA's count for one token, every layer in a loop of its own."""
    monkeypatch.setattr(parameters, "find_segments", lambda groups: tuple(Segment(i, 1, 1) for i in range(len(groups))))
    segments, leaves = leaves_of(train)
    trees = [
        unflatten_dict(
            {leaf.path: jax.ShapeDtypeStruct(leaf.shape, jnp.float32) for leaf in leaves if leaf.trained == t}
        )
        for t in (True, False)
    ]
    head = any(leaf.trained and leaf.names[0] == "lm_head.weight" for leaf in leaves)
    program = Program(CONFIG, segments, "float32", "none", head)
    numbers = jax.ShapeDtypeStruct((1, BATCH, TOKENS), jnp.int32)
    fields = numbers, numbers, numbers, numbers, jax.ShapeDtypeStruct(numbers.shape, jnp.float32)

    def gradient(trained, frozen, *fields):
        return mean_gradient(trained, frozen, Batch(*fields), program)

    compiled = jax.jit(gradient).lower(*trees, *fields).compile()
    return compiled.cost_analysis()["flops"] / (BATCH * TOKENS)


@pytest.mark.parametrize("train", ["new", "all", r"layers\.(9|11)\.mlp", "lm_head"])
def test_formula_is_the_count_of_the_unrolled_program(train, monkeypatch):
    formula = token_cost(CONFIG, leaves_of(train)[1], TOKENS).total
    assert formula == pytest.approx(counted(train, monkeypatch), rel=0.05)


def test_a_top_half_plan_costs_less_than_seven_tenths():
    new, whole = (token_cost(CONFIG, leaves_of(train)[1], TOKENS).total for train in ("new", "all"))
    assert new / whole < 0.70


def test_frozen_memory_has_no_moments():
    leaves = leaves_of("new")[1]
    memory = state_bytes(leaves, leaf_shardings(leaves, make_mesh({"data": 1, "fsdp": 1, "tensor": 1})), jnp.bfloat16)
    layer = 2 * 256 * 256 + 2 * 256 * 128 + 3 * 256 * 640 + 2 * 256
    assert memory.trained == 4 * 4 * layer
    assert memory.moments == 2 * memory.trained
    assert memory.frozen == 2 * (8 * layer + 2 * 512 * 256 + 256)


def test_a_step_takes_as_long_as_the_devices_need_at_their_typical_use(monkeypatch):
    peaks = [4e12, None]
    monkeypatch.setattr(cost, "device_peak", lambda: peaks.pop(0))
    monkeypatch.setattr(cost, "measured_peak", lambda dtype: 1e12)
    monkeypatch.setattr(jax, "device_count", lambda: 2)
    seconds = [cost.estimate_seconds(cost.Cost(1e9, 3e9, 1), 1000, "float32") for _ in range(2)]
    assert seconds == pytest.approx([4e12 / (2 * 4e12 * 0.4), 4e12 / (2 * 1e12 * 0.4)])
