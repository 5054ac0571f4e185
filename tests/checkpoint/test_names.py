"""Names and stacks: the way from names to arrays and back loses nothing and confuses no numbers."""

import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from hypothesis import given
from hypothesis import strategies as st

from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.format import TensorSpec
from lesa_jax.checkpoint.names import parse, render, stack_names
from lesa_jax.checkpoint.reader import load_tree, open_checkpoint, read_bytes
from tests.support.tiny import CONFIGS, tiny

MATRIX = TensorSpec((4, 3), "F32")


@given(st.lists(st.one_of(st.integers(0, 200).map(str), st.sampled_from(["layers", "w", "07", "h", "x2"])), min_size=1))
def test_render_inverts_parse(parts):
    name = ".".join(parts)
    template, numbers = parse(name)
    assert render(template, numbers) == name
    assert template.count("*") == len(numbers)


def test_layer_3_is_neither_layer_30_nor_expert_3():
    assert parse("model.layers.30.experts.3.w") == ("model.layers.*.experts.*.w", (30, 3))
    assert render("model.layers.*.experts.*.w", (3, 30)) == "model.layers.3.experts.30.w"


def test_stack_axes_are_layers_then_experts():
    names = {f"l.{layer}.e.{expert}.w": MATRIX for layer in range(3) for expert in range(12)}
    (stack,) = stack_names(names)
    assert (stack.template, stack.sizes, stack.path, stack.whole) == ("l.*.e.*.w", (3, 12), ("l", "e", "w"), True)
    assert stack.names()[12:14] == ["l.1.e.0.w", "l.1.e.1.w"]
    assert set(stack.names()) == set(names)


def test_runs_of_unlike_layers_are_separate_stacks():
    wide = TensorSpec((8, 3), "F32")
    kinds = {"l.0.w": MATRIX, "l.1.w": MATRIX, "l.2.w": wide, "l.3.w": MATRIX, "l.0.n": MATRIX, "l.3.n": MATRIX}
    stacks = {stack.path: stack for stack in stack_names(kinds)}
    assert set(stacks) == {("l[0:2]", "w"), ("l[2:3]", "w"), ("l[3:4]", "w"), ("l[0:1]", "n"), ("l[3:4]", "n")}
    assert stacks["l[2:3]", "w"].names() == ["l.2.w"]


def test_experts_that_differ_are_kept_one_by_one_with_their_layer():
    kinds = {"l.0.e.0.w": MATRIX, "l.0.e.1.w": TensorSpec((9, 3), "F32"), "l.1.e.0.w": MATRIX}
    stacks = stack_names(kinds)
    assert sorted(name for stack in stacks for name in stack.names()) == sorted(kinds)
    assert all(stack.prefix == "l." for stack in stacks)


def test_colliding_names_are_refused():
    with pytest.raises(InputError, match="collide at a.w"):
        stack_names({"a.0.w": MATRIX, "a.w": MATRIX})


@pytest.mark.parametrize("family", CONFIGS)
def test_tree_round_trip_is_bit_exact(family):
    checkpoint = open_checkpoint(tiny(family))
    leaves = flatten_dict(load_tree(checkpoint))
    tensors = {}
    for stack in checkpoint.stacks:
        rows = leaves.pop(stack.path).reshape(-1, *stack.spec.shape)
        tensors |= dict(zip(stack.names(), rows, strict=True))
    assert not leaves
    assert tensors.keys() == checkpoint.entries.keys()
    for name, entry in checkpoint.entries.items():
        assert np.ascontiguousarray(tensors[name]).tobytes() == bytes(read_bytes(checkpoint, entry))
