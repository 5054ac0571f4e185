"""The formula for a step's cost is the count of the matrix products that a step computes."""

from dataclasses import replace
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

from lesa_jax.checkpoint.reader import open_checkpoint
from lesa_jax.families.model import ModelConfig
from lesa_jax.models.blocked_attention import query_blocks
from lesa_jax.models.config import read_config
from lesa_jax.models.parts import output_tensor
from lesa_jax.parallel.mesh import make_mesh
from lesa_jax.planning.methods import MEASURED, METHODS, Placement
from lesa_jax.planning.placement import make_plan
from lesa_jax.planning.plan import Plan
from lesa_jax.training import cost
from lesa_jax.training.cost import state_bytes, token_cost
from lesa_jax.training.lora import with_adapters
from lesa_jax.training.parameters import choose, make_leaves
from lesa_jax.training.settings import Remat
from lesa_jax.training.sharding import leaf_shardings
from lesa_jax.training.step import Batch, Program, mean_gradient
from tests.support.operations import product_operations
from tests.support.tiny import tiny
from tests.support.trees import MESH

BATCH, TOKENS = 2, 64
CONFIG = read_config(
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


def counted(config: ModelConfig, plan: Plan, train: str, parts: int = 1, remat: Remat = "none") -> tuple[float, float]:
    """Operations of one token: of the matrix products of a training step's gradient as traced, and by the formula.

    Two things are in the program that the formula is not meant to have, and are added to it: blocks of queries reach up
    to their last query's key, also for their first; and the backward pass computes the scores again, so that it has
    five products of that size where the model itself needs four.
    """
    trained = choose(train, config, plan)
    segments, leaves = make_leaves(config, trained)
    trees = [
        unflatten_dict(
            {leaf.path: jax.ShapeDtypeStruct(leaf.shape, jnp.float32) for leaf in leaves if leaf.trained == t}
        )
        for t in (True, False)
    ]
    program = Program(config, segments, "float32", remat, output_tensor(config) in trained)
    numbers = jax.ShapeDtypeStruct((parts, BATCH, TOKENS), jnp.int32)
    fields = numbers, numbers, numbers, numbers, jax.ShapeDtypeStruct(numbers.shape, jnp.float32)

    def gradient(trained, frozen, *fields):
        return mean_gradient(trained, frozen, Batch(*fields), program)

    count = product_operations(gradient, *trees, *fields) / numbers.size
    cost = token_cost(config, leaves, TOKENS)
    expected = cost.total
    for layer, window in enumerate(config.windows):
        seen = np.minimum(np.arange(1, TOKENS + 1), window or TOKENS).mean()
        blocks = query_blocks(BATCH, TOKENS, config.num_heads, window)
        reached = sum((stop - start) * (stop - first) for start, stop, first in blocks) / TOKENS
        product = 2 * config.num_heads * config.head_dim
        expected += 2 * product * (reached - seen)
        if layer >= config.num_layers - cost.backward_depth:
            expected += product * (5 * reached - 4 * seen)
    return count, expected


PLACEMENTS = sorted({*get_args(Placement)} - {*MEASURED})
STACKED = [name for name, method in METHODS.items() if method.stacking]


@pytest.mark.parametrize(
    "train", ["new", *(pytest.param(more, marks=pytest.mark.slow) for more in ("new+norms", r"layers\.(9|11)\.mlp"))]
)
@pytest.mark.parametrize("where", [*PLACEMENTS, *STACKED])
def test_the_formula_is_the_count_wherever_new_layers_are(where, train):
    method, placement = ("llama_pro", where) if where in PLACEMENTS else (where, None)
    count, expected = counted(CONFIG, make_plan(8, method, layers=12, placement=placement), train)
    assert count == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("train", ["all", "lm_head", "embed_tokens", r"model\.norm", r"layers\.5\.input_|layers\.8"])
def test_the_formula_is_the_count_whatever_is_trained(train):
    count, expected = counted(CONFIG, PLAN, train)
    assert count == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("train", ["new", "all", "embed_tokens", r"layers\.3\.self_attn"])
@pytest.mark.parametrize("changes", [{"tied": True}, {"windows": (16,) * 12}])
def test_the_formula_is_the_count_of_tied_models_and_windows(changes, train):
    count, expected = counted(replace(CONFIG, **changes), PLAN, train)
    assert count == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("family", "train"),
    [("gpt2", r"\.wpe\."), ("gpt2", "all"), ("gemma2", "new"), ("gpt_neox", "new"), ("phi3", "new"), ("falcon", "new")],
)
def test_the_formula_is_the_count_of_other_families(family, train):
    count, expected = counted(read_config(open_checkpoint(tiny(family)).config), make_plan(4, "lesa", layers=6), train)
    assert count == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("family", ["llama", "gpt2", "phi3"])
def test_the_formula_is_the_count_of_adapters(family):
    config = read_config(open_checkpoint(tiny(family)).config)
    count, expected = counted(with_adapters(config, "lora:5"), PLAN, "lora:5")
    assert count == pytest.approx(expected, rel=1e-12)
    assert count < counted(config, PLAN, "all")[0]


def test_the_formula_is_the_count_of_a_batch_in_parts():
    count, expected = counted(CONFIG, PLAN, "new", parts=3)
    assert count == pytest.approx(expected, rel=1e-12)


def test_rematerialised_blocks_compute_no_product_again():
    """Neither those with weights nor attention's, whose results have the name that the rule keeps."""
    count, expected = counted(CONFIG, PLAN, "new", remat="block")
    assert count == pytest.approx(expected, rel=1e-12)
    assert counted(CONFIG, PLAN, "new", remat="full")[0] > 1.2 * expected


def test_what_lies_below_the_first_new_layer_has_no_backward_pass():
    """LLaMA Pro's own places, (old, old, new) x 4: the two lowest layers run forward only."""
    plan = make_plan(8, "llama_pro", layers=12)
    leaves = make_leaves(CONFIG, choose("new", CONFIG, plan))[1]
    assert token_cost(CONFIG, leaves, TOKENS).backward_depth == 10


def test_a_top_half_plan_costs_less_than_seven_tenths():
    new, whole = (token_cost(CONFIG, leaves_of(train)[1], TOKENS).total for train in ("new", "all"))
    assert new / whole < 0.70


def test_frozen_memory_has_no_moments():
    leaves = leaves_of("new")[1]
    memory = state_bytes(leaves, leaf_shardings(leaves, make_mesh(MESH)), jnp.bfloat16)
    layer = 2 * 256 * 256 + 2 * 256 * 128 + 3 * 256 * 640 + 2 * 256
    assert memory.trained == 4 * 4 * layer
    assert memory.moments == 2 * memory.trained
    assert memory.frozen == 2 * (8 * layer + 2 * 512 * 256 + 256)


def test_a_step_takes_as_long_as_the_devices_need_at_their_typical_use(monkeypatch):
    peaks = [4e12, None]
    monkeypatch.setattr(cost, "device_peak", lambda: peaks.pop(0))
    monkeypatch.setattr(cost, "product_rate", lambda size, dtype, tries: 1e12)
    monkeypatch.setattr(jax, "device_count", lambda: 2)
    seconds = [cost.estimate_seconds(cost.Cost(1e9, 3e9, 1), 1000, "float32") for _ in range(2)]
    assert seconds == pytest.approx([4e12 / (2 * 4e12 * 0.4), 4e12 / (2 * 1e12 * 0.4)])
