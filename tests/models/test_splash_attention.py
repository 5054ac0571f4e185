"""The TPU's kernel computes what XLA does, run by Pallas's interpreter; this module is also run by a test.

What no test here can say: that Mosaic compiles the kernel on a given TPU, and how fast it is.
"""

import json
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from lesa_jax.models import attention
from lesa_jax.models.attention import on_shards, square_attention
from lesa_jax.models.blocked_attention import SAVED, attention_by_blocks
from lesa_jax.models.config import read_config
from lesa_jax.models.shapes import model_tensors
from lesa_jax.models.splash_attention import block_size, splash_attention, splash_refusals
from lesa_jax.parallel.mesh import BATCH, make_mesh
from lesa_jax.training.parameters import make_leaves
from lesa_jax.training.sharding import leaf_shardings
from lesa_jax.training.step import Batch, Program, mean_gradient
from tests.support.devices import environment_of

TOKENS = 256
SIZES = {"data": 2, "fsdp": 2, "expert": 1, "tensor": 2}


def operands(heads: int, kv_heads: int, head_dim: int, batch: int = 2) -> tuple[jax.Array, ...]:
    """q, k, v and documents: two or three in a row, then padding. A document's border is no block's border."""
    rng = np.random.default_rng(0)
    q, k, v = (
        jnp.asarray(rng.standard_normal((batch, TOKENS, n, head_dim)), jnp.float32) for n in (heads, kv_heads, kv_heads)
    )
    documents = np.zeros((batch, TOKENS), np.int32)
    for row in documents:
        row[:77], row[77:150], row[150:211] = 1, 2, rng.integers(2, 4)
    return q, k, v, jnp.asarray(documents)


def value_and_gradients(attend: Any, q: jax.Array, k: jax.Array, v: jax.Array, *rest: Any) -> list[jax.Array]:
    """The output, and the gradients of a function of it that weights all of its elements differently."""

    def loss(q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
        mixed = attend(q, k, v, *rest)
        return jnp.sum(jnp.sin(mixed * 3)), mixed

    gradients, mixed = jax.jit(jax.grad(loss, (0, 1, 2), has_aux=True))(q, k, v)
    return [mixed, *gradients]


def worst(found: list[jax.Array], expected: list[jax.Array]) -> float:
    """The largest error, relative to the largest value."""
    scale = max(float(jnp.max(jnp.abs(x))) for x in expected)
    return max(float(jnp.max(jnp.abs(a - b))) for a, b in zip(found, expected, strict=True)) / scale


@pytest.mark.parametrize(
    ("heads", "kv_heads", "head_dim", "window", "packed"),
    [
        (2, 2, 64, None, False),
        (6, 2, 128, None, False),
        (6, 2, 64, 100, False),
        (6, 2, 64, None, True),
    ],
)
def test_output_and_gradients_are_those_of_the_whole_square(heads, kv_heads, head_dim, window, packed):
    q, k, v, documents = operands(heads, kv_heads, head_dim)
    given = documents if packed else None

    def splash(q, k, v):
        return splash_attention(q, k, v, window, given, saved=SAVED, interpret=True)

    found = value_and_gradients(splash, q, k, v)
    expected = value_and_gradients(square_attention, q, k, v, window, given)
    assert worst(found, expected) < 1e-5


def test_capped_scores_are_those_of_the_blocks():
    q, k, v, documents = operands(2, 1, 64, batch=1)
    q = 4 * q  # so that the cap of 2 bends scores
    found = value_and_gradients(
        lambda q, k, v: splash_attention(q, k, v, 100, documents, cap=2.0, interpret=True), q, k, v
    )
    expected = value_and_gradients(attention_by_blocks, q, k, v, 100, documents, 2.0)
    assert worst(found, expected) < 1e-5
    assert worst(found, value_and_gradients(attention_by_blocks, q, k, v, 100, documents)) > 0.1


def test_documents_and_padding_do_not_see_each_other():
    q, k, v, documents = operands(2, 1, 64, batch=1)

    def read(values: jax.Array) -> jax.Array:
        return splash_attention(q, k, values, None, documents, interpret=True)

    before = read(v)
    for number in (1, 2, 0):
        inside = np.asarray(documents[0] == number)
        after = read(jnp.where(inside[None, :, None, None], v + 1, v))
        changed = np.any(np.asarray(after != before), axis=(0, 2, 3))
        np.testing.assert_array_equal(changed, inside)


def test_several_blocks_of_tokens():
    """640 tokens are 5 blocks of 128, most of them masked by window, causality or documents."""
    rng = np.random.default_rng(1)
    q, k, v = (jnp.asarray(rng.standard_normal((1, 640, heads, 64)), jnp.float32) for heads in (2, 1, 1))
    documents = jnp.asarray(np.sort(rng.integers(0, 4, (1, 640)), axis=1), jnp.int32)
    assert block_size(640, 64, jnp.float32) == 128

    def splash(q, k, v):
        return splash_attention(q, k, v, 200, documents, interpret=True)

    assert (
        worst(value_and_gradients(splash, q, k, v), value_and_gradients(square_attention, q, k, v, 200, documents))
        < 1e-5
    )


def test_what_the_kernel_cannot_do_is_refused():
    q, k, v, documents = operands(2, 2, 64)
    with pytest.raises(ValueError, match="200 tokens are no multiple of 128"):
        splash_attention(*(x[:, :200] for x in (q, k, v)), None, documents[:, :200], interpret=True)
    with pytest.raises(ValueError, match="heads of 32"):
        splash_attention(*(x[..., :32] for x in (q, k, v)), None, documents, interpret=True)
    with pytest.raises(ValueError, match="a window of 0 tokens"):
        splash_attention(q, k, v, 0, documents, interpret=True)
    # Under the tests' import hook the annotations refuse these before the function does.
    for arguments in ((q, k, v, None, documents[:, :128]), (q, k, v, jnp.asarray(3), documents)):
        with pytest.raises(Exception, match=r"Type-check error|splash attention"):
            splash_attention(*arguments, interpret=True)


@pytest.mark.parametrize(
    ("tokens", "head_dim", "dtype", "fits"),
    [
        (128, 64, jnp.bfloat16, True),
        (4096, 128, jnp.float32, True),
        (4096, 128, "bfloat16", True),
        (200, 128, jnp.bfloat16, False),
        (128, 48, jnp.bfloat16, False),
        (128, 128, jnp.float16, False),
    ],
)
def test_shapes_that_fit(tokens, head_dim, dtype, fits):
    assert fits == (not any(met for met, _ in splash_refusals(tokens, head_dim, dtype)))


@pytest.mark.parametrize(
    ("tokens", "head_dim", "dtype", "size"),
    [
        (4096, 128, jnp.bfloat16, 512),
        (4096, 256, jnp.float32, 256),
        (384, 64, jnp.bfloat16, 384),
        (128, 64, "float32", 128),
    ],
)
def test_blocks_divide_the_sequence(tokens, head_dim, dtype, size):
    assert block_size(tokens, head_dim, dtype) == size


@pytest.mark.parametrize(("head_dim", "dtype"), [(64, jnp.bfloat16), (128, jnp.bfloat16), (192, jnp.float32)])
def test_forward_and_backward_lower_to_three_kernels_for_a_tpu(head_dim, dtype):
    """Pallas's half of the compilation, which checks blocks and layouts; k and v are never repeated for their group."""
    q, k, v = (jax.ShapeDtypeStruct((2, 1024, heads, head_dim), dtype) for heads in (6, 2, 2))
    documents = jax.ShapeDtypeStruct((2, 1024), jnp.int32)

    def loss(q, k, v, documents):
        return jnp.sum(splash_attention(q, k, v, 300, documents).astype(jnp.float32))

    program = jax.jit(jax.grad(loss, (0, 1, 2))).trace(q, k, v, documents).lower(lowering_platforms=("tpu",))
    assert program.as_text().count("stablehlo.custom_call @tpu_custom_call") == 3


@pytest.mark.slow
def test_eight_devices_compute_what_one_does():
    env = environment_of(8)
    command = [sys.executable, "-m", __name__]
    process = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    errors = json.loads(process.stdout.splitlines()[-1])
    assert errors.keys() == {"attention", "uneven", "training"}
    assert max(errors.values()) < 1e-5, errors


def sharded_error(mesh: Mesh, batch: int) -> float:
    """Of attention under the mesh against the whole square on one device."""
    q, k, v, documents = operands(4, 2, 64, batch)
    rows = P(BATCH) if batch % 4 == 0 else P()
    here = NamedSharding(mesh, rows)

    def sharded(q, k, v, documents):
        return on_shards(
            lambda q, k, v, documents_BxT: splash_attention(q, k, v, 100, documents_BxT, interpret=True),
            q, k, v, documents,
        )  # fmt: skip

    found = value_and_gradients(sharded, *(jax.device_put(x, here) for x in (q, k, v, documents)))
    expected = value_and_gradients(square_attention, q, k, v, 100, documents)
    return worst(jax.device_get(found), jax.device_get(expected))


def training_error(mesh: Mesh, remat: str) -> float:
    """Of a training step's loss and gradient with the kernel, against those without."""
    config = read_config(
        {
            "model_type": "mistral",
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 64,
            "intermediate_size": 48,
            "vocab_size": 64,
            "max_position_embeddings": 256,
            "rms_norm_eps": 1e-5,
            "sliding_window": 100,
            "tie_word_embeddings": False,
        }
    )
    segments, leaves = make_leaves(config, frozenset(model_tensors(config)))
    shardings = leaf_shardings(leaves, mesh)
    rng = np.random.default_rng(0)
    trained = unflatten_dict(
        {
            leaf.path: jax.device_put(rng.standard_normal(leaf.shape).astype(np.float32) * 0.2, shardings[leaf.path])
            for leaf in leaves
        }
    )
    shape = (1, 4, TOKENS)
    documents = np.asarray(operands(1, 1, 64, 4)[3])[None]
    fields = (
        rng.integers(0, 64, shape).astype(np.int32),
        rng.integers(0, 64, shape).astype(np.int32),
        documents,
        np.broadcast_to(np.arange(TOKENS, dtype=np.int32), shape),
        (documents > 0).astype(np.float32),
    )
    batch = Batch(*(jax.device_put(x, NamedSharding(mesh, P(None, BATCH))) for x in fields))
    program = Program(config, segments, "float32", remat, True)

    def gradient() -> list[jax.Array]:
        losses, _, gradient = jax.jit(lambda *trees: mean_gradient(*trees, program=program))(trained, {}, batch)
        return jax.device_get([losses.nll, *jax.tree.leaves(gradient)])

    expected = gradient()
    chosen = attention.choose_implementation
    attention.choose_implementation = lambda *_: "splash"
    try:
        return worst(gradient(), expected)
    finally:
        attention.choose_implementation = chosen


if __name__ == "__main__":
    everywhere = make_mesh(SIZES)
    found = {"attention": sharded_error(everywhere, 4), "uneven": sharded_error(everywhere, 3)}
    print(json.dumps(found | {"training": training_error(everywhere, "block")}))
