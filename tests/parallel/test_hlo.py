"""What a compiled program's text says: written down here as the compilers of TPUs and GPUs write it, and by XLA."""

import json
import subprocess
import sys

import pytest

from lesa_jax.parallel.collectives import collectives
from lesa_jax.parallel.hlo import bits_of, read_program, split_type, type_bytes
from lesa_jax.parallel.operations import Products, kernels, launches, products
from tests.support.devices import environment_of

# As the TPU's compiler writes: an asynchronous gather in a loop of 16, started and ended under one channel; a sum of
# which each chip keeps a share; groups by the names of a mesh; the loop's bound in its condition.
TPU = """\
HloModule jit_step, is_scheduled=true

%start.1 (param_0.1: bf16[1,64,256]) -> bf16[1,64,1024] {
  %param_0.1 = bf16[1,64,256]{2,1,0:T(8,128)(2,1)S(1)} parameter(0)
  ROOT %all-gather.1 = bf16[1,64,1024]{2,1,0:T(8,128)(2,1)} all-gather(%param_0.1), channel_id=7, \
replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_1'}, dimensions={2}, metadata={op_name="jit(step)/while/dot"}
}

%done.1 (param_0.2: bf16[1,64,256]) -> bf16[1,64,1024] {
  %param_0.2 = bf16[1,64,256]{2,1,0:T(8,128)(2,1)S(1)} parameter(0)
  ROOT %all-gather.2 = bf16[1,64,1024]{2,1,0:T(8,128)(2,1)S(1)} all-gather(%param_0.2), channel_id=7, \
replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_1'}, dimensions={2}, metadata={op_name="jit(step)/while/dot"}
}

%all-reduce-scatter.3 (input.1: bf16[1024,64]) -> bf16[256,64] {
  %input.1 = bf16[1024,64]{1,0:T(8,128)(2,1)} parameter(0)
  %all-reduce.3 = bf16[1024,64]{1,0:T(8,128)(2,1)} all-reduce(%input.1), channel_id=1, \
replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add.1
  ROOT %dynamic-slice.1 = bf16[256,64]{1,0:T(8,128)(2,1)} dynamic-slice(%all-reduce.3), dynamic_slice_sizes={256,64}
}

%body (arg: (s32[], bf16[1,64,256])) -> (s32[], bf16[1,64,256]) {
  %arg = (s32[]{:T(128)}, bf16[1,64,256]{2,1,0:T(8,128)(2,1)}) parameter(0)
  %gte.1 = bf16[1,64,256]{2,1,0:T(8,128)(2,1)} get-tuple-element(%arg), index=1
  %fusion.1 = bf16[1,64,1024]{2,1,0:T(8,128)(2,1)} fusion(%gte.1), kind=kCustom, calls=%start.1
  %fusion.2 = bf16[1,64,1024]{2,1,0:T(8,128)(2,1)} fusion(%gte.1), kind=kCustom, calls=%done.1
  %splash_mha_fwd.3 = bf16[8]{0} custom-call(%fusion.2), custom_call_target="tpu_custom_call", \
operand_layout_constraints={bf16[1,64,1024]{2,1,0}}
  %alloc = u32[]{:S(2)} custom-call(), custom_call_target="AllocateBuffer"
  %fusion.3 = bf16[256,64]{1,0:T(8,128)(2,1)} fusion(%fusion.2), kind=kCustom, calls=%all-reduce-scatter.3
  ROOT %tuple.1 = (s32[]{:T(128)}, bf16[1,64,256]{2,1,0:T(8,128)(2,1)}) tuple(%arg, %gte.1)
}

%condition (arg.2: (s32[], bf16[1,64,256])) -> pred[] {
  %arg.2 = (s32[]{:T(128)}, bf16[1,64,256]{2,1,0:T(8,128)(2,1)}) parameter(0)
  %constant.9 = s32[]{:T(128)} constant(16)
  ROOT %compare.1 = pred[]{:T(512)} compare(%arg.2, %constant.9), direction=LT
}

ENTRY %main (p: (s32[], bf16[1,64,256])) -> (s32[], bf16[1,64,256]) {
  %p = (s32[]{:T(128)}, bf16[1,64,256]{2,1,0:T(8,128)(2,1)}) parameter(0)
  ROOT %while.1 = (s32[]{:T(128)}, bf16[1,64,256]{2,1,0:T(8,128)(2,1)}) while(%p), condition=%condition, body=%body
}
"""
# As a GPU's writes: results of a start hold parts and wholes, the loop's length is written down.
GPU = """\
ENTRY %main.1 (p.1: bf16[64,8]) -> bf16[64,8] {
  %p.1 = bf16[64,8]{1,0} parameter(0)
  %while.2 = (s32[], bf16[64,8]{1,0}) while(%p.1), condition=%c.1, body=%b.1, \
backend_config={"known_trip_count":{"n":"3"},"known_init_step":{"init":"0","step":"1"}}
  ROOT %all-to-all.1 = bf16[64,8]{1,0} all-to-all(%p.1), channel_id=4, replica_groups=[2,4]<=[8], dimensions={0}
}

%b.1 (arg.1: (s32[], bf16[64,8])) -> (s32[], bf16[64,8]) {
  %reduce-scatter-start.1 = ((bf16[64,8]{0,1}, f32[64]{0}), (bf16[16,8]{0,1}, f32[16]{0})) \
reduce-scatter-start(%a, %b), channel_id=90, replica_groups=[2,4]<=[8], to_apply=%add
  %all-gather-start.1 = (bf16[16,8]{1,0}, bf16[64,8]{1,0}) all-gather-start(%c), channel_id=91, \
replica_groups=[2,4]<=[8]
  %call.1 = bf16[8]{0} custom-call(%d), custom_call_target="__cudnn$fmhaSoftmax"
}
"""


def test_a_gather_in_a_loop_counts_once_a_turn_and_a_sum_that_is_cut_up_is_a_scatter():
    gather, scatter = sorted(collectives(read_program(TPU)), key=lambda one: one.kind)
    assert (gather.kind, gather.times, gather.nbytes, gather.group) == ("all-gather", 16, 2 * 64 * 1024, 4)
    assert gather.source == "jit(step)/while/dot"
    assert gather.sent == 16 * 2 * 64 * 1024 * 3 / 4
    assert (scatter.kind, scatter.times, scatter.nbytes, scatter.group) == ("reduce-scatter", 16, 2 * 1024 * 64, 4)


def test_what_starts_has_parts_and_wholes_in_its_result():
    found = {one.kind: one for one in collectives(read_program(GPU))}
    assert found["reduce-scatter"].nbytes == 2 * 64 * 8 + 4 * 64
    assert found["all-gather"].nbytes == 2 * 64 * 8
    assert found["all-gather"].times == found["reduce-scatter"].times == 3
    assert (found["all-to-all"].times, found["all-to-all"].group) == (1, 4)


def test_kernels_are_named_and_counted_and_managing_calls_left_out():
    assert kernels(read_program(TPU)) == {"splash_mha_fwd": 16}
    assert kernels(read_program(GPU)) == {"__cudnn$fmhaSoftmax": 3}


PRODUCTS = """\
%body (arg: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  %x.1 = f32[4,8]{1,0} get-tuple-element(%arg), index=1
  %w.1 = bf16[16,8]{1,0} constant({...})
  %dot.1 = f32[4,16]{1,0} dot(%x.1, %w.1), lhs_contracting_dims={1}, rhs_contracting_dims={1}
  %batched.1 = f32[4,3]{1,0} dot(%x.1, %v.1), lhs_batch_dims={0}, lhs_contracting_dims={1}, rhs_batch_dims={0}, \
rhs_contracting_dims={1}, metadata={op_name="jit(f)/checkpoint/rematted_computation/dot_general"}
}

%condition (arg.2: (s32[], f32[4,8])) -> pred[] {
  %constant.9 = s32[]{:T(128)} constant(5)
}

ENTRY %main (p: f32[2,8,32], k: f32[16,32,1]) -> f32[2,8,16] {
  %p = f32[2,8,32]{2,1,0:T(8,128)} parameter(0)
  %k = f32[16,32,1]{1,0,2:T(8,128)} parameter(1)
  %while.1 = (s32[], f32[4,8]) while(%p), condition=%condition, body=%body
  %convolution.1 = f32[2,8,16]{1,2,0:T(8,128)S(1)} convolution(%p, %k), window={size=1}, dim_labels=b0f_oi0->b0f
  %q = bf16[1,64,8]{2,1,0} parameter(2)
  %padded.1 = bf16[2,64,16]{1,2,0} convolution(%q, %r), window={size=2 pad=1_1 rhs_reversal=1}, \
dim_labels=0bf_0oi->0bf
  %r = bf16[2,16,8]{1,2,0} parameter(3)
}
"""


def test_products_are_counted_as_often_as_they_run_and_padding_costs_nothing():
    once = 5 * 2 * 4 * 16 * 8 + 2 * 2 * 8 * 16 * 32 + 2 * 64 * 16 * 8 * 2
    assert products(read_program(PRODUCTS)) == Products(once=once, again=5 * 2 * 4 * 3 * 8)


LIBRARY = """\
ENTRY %main (p: bf16[24,8], k: bf16[16,8]) -> bf16[24,16] {
  %p = bf16[24,8]{1,0} parameter(0)
  %k = bf16[16,8]{1,0} parameter(1)
  ROOT %cublas-gemm.1 = (bf16[24,16]{1,0}, s8[4194304]{0}) custom-call(%p, %k), custom_call_target="__cublas$gemm", \
backend_config={"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"],\
"rhs_contracting_dimensions":["1"],"lhs_batch_dimensions":[],"rhs_batch_dimensions":[]}}}
}
"""


def test_a_librarys_products_count_as_others():
    assert products(read_program(LIBRARY)) == Products(once=2 * 24 * 16 * 8, again=0)


def test_launches_are_what_runs_on_the_device_and_a_fusion_is_one():
    assert launches(read_program(PRODUCTS)) == 5 * 2 + 2
    assert (
        launches(read_program(TPU)) == 16 * 5
    )  # in each turn three fusions, a kernel, and the comparison for the next
    assert launches(read_program(GPU)) == 3 * 3 + 1  # starts; ends are waited for, and the loop runs on the host


def test_types_with_layouts_and_tuples_are_measured():
    type_, rest = split_type("(bf16[2,3]{1,0:T(8,128)(2,1)S(1)}, (u32[]{:S(2)}, pred[4]{0})) fusion(%a)")
    assert rest == "fusion(%a)"
    assert type_bytes(type_) == 12 + 4 + 4
    assert [bits_of(name) for name in ("f8e4m3fn", "s4", "bf16", "f64", "pred", "token")] == [8, 4, 16, 64, 8, 0]


def test_computations_are_found_by_name():
    program = read_program(TPU)
    assert program.entry == "main"
    assert [one.opcode for one in program.bodies["condition"]] == ["parameter", "constant", "compare"]


PROGRAM = """
import jax, jax.numpy as jnp, json
from jax.sharding import PartitionSpec as P
from lesa_jax.parallel.collectives import collectives
from lesa_jax.parallel.hlo import read_program
mesh = jax.make_mesh((4,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
def turn(carry, _):
    total = jax.lax.psum(carry, "x")
    return jax.lax.psum_scatter(jax.lax.all_gather(total, "x", tiled=True), "x", tiled=True), None
def body(x):
    return jax.lax.ppermute(jax.lax.scan(turn, x, None, length=5)[0], "x", [(0, 1), (1, 0)])
x = jnp.zeros((8, 16))
step = jax.jit(jax.shard_map(body, mesh=mesh, in_specs=P("x"), out_specs=P("x"), check_vma=False))
found = collectives(read_program(step.lower(x).compile().as_text()))
print(json.dumps({one.kind: [one.times, one.nbytes, one.group] for one in found}))
"""


@pytest.mark.slow
def test_it_is_what_xla_writes_today():
    env = environment_of(4)
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "all-reduce": [5, 2 * 16 * 4, 4],
        "all-gather": [5, 8 * 16 * 4, 4],
        "reduce-scatter": [5, 8 * 16 * 4, 4],
        "collective-permute": [1, 2 * 16 * 4, 2],
    }
