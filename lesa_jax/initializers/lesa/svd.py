"""Thin SVD of a model's L matrices of one kind laid side by side, from their Gram matrix, layer by layer.

LESA (arXiv 2502.13794, section 3.1) decomposes [W_0 | W_1 | ... | W_{L-1}], each W_l [out, in], into U diag(S) V^T and
works on the blocks V_l [r, in] of V^T. The public code forms the concatenation [out, L*in] and calls an SVD on it. Only
U and S couple the layers, and both come from the Gram matrix sum_l W_l W_l^T [out, out], which is summed layer by
layer; the block of one layer is then V_l = S^-1 U^T W_l. That replaces an SVD by an eigendecomposition that does not
grow with L, and matrix products. Layers are asked for one after the other, several times over, so that they may stay
in the file that they come from; V goes where the caller has room for it.

Precision. A Gram matrix squares the condition number, so in float32 the eigenvectors of singular values below about
0.05 sigma_1 are mixed with one another (hardly with the large ones: those gaps are wide). The cure is deflation:
project the layers onto that mixed tail, take the tail's own Gram matrix, whose largest entry is now 400 times smaller
or more, and rotate the tail by its eigenvectors; and so on with the tail's own tail, down to what counts as null.
Singular values are then the row norms of U^T W, Rayleigh quotients whose error is quadratic in what mixing is left.
Inputs without such a tail do not pay.
"""

import functools
import itertools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from lesa_jax.initializers.lesa.ahead import Ahead
from lesa_jax.initializers.lesa.layers import Blocks, Layers, Room, Waiting, each, store
from lesa_jax.initializers.lesa.range_finder import Projected, find_range, range_programs
from lesa_jax.initializers.matrices import dot
from lesa_jax.planning.ranks import kept_rank, searched

QUARTERS = 4  # in so many sizes tails are rotated


@flax.struct.dataclass
class LayerSVD:
    """[W_0 | ... | W_{L-1}] = u @ diag(s) @ [v_0 | ... | v_{L-1}], r = min(out, L*in).

    Singular values descend up to rounding. The sign of a direction is whatever the eigensolver returns. Directions that
    float arithmetic cannot tell from null ones (`kept` false) have s = 0 and v = 0; their columns of u are orthonormal
    all the same.
    """

    u: Float[Array, "*kinds out r"]
    s: Float[Array, "*kinds r"]
    v: Any  # `Blocks` [*kinds layers r in]
    kept: Bool[Array, "*kinds r"]
    error: Float[Array, "*kinds"] | None = None  # what is left out of a lower rank, over all, by Frobenius norm


def cut_ratio(dtype: DTypeLike) -> float:
    """sigma / sigma_1 at or below which a direction counts as null: 1.0e-5 in float32, 4.5e-10 in float64."""
    return 0.03 * float(jnp.finfo(dtype).eps) ** 0.5


def tail_ratio(dtype: DTypeLike) -> float:
    """sigma / sigma_1 below which the first eigenvectors are refined: 0.05 in float32, 3e-4 in float64."""
    return 2.7 * float(jnp.finfo(dtype).eps) ** 0.25


def layer_svd(w: Layers, dtype: DTypeLike = jnp.float32, room: Room | None = None, rank: int | None = None) -> LayerSVD:
    """SVD of the layers side by side, in `dtype` (float64 needs `jax.enable_x64`). Not for use inside `jax.jit`.

    Measured on float32 inputs of condition number up to 1e4: singular values within 1e-4 relative of float64 LAPACK.
    On any input: U^T U within 1e-5 of the identity, ||W - U S V||_F / ||W||_F below 2e-6 and what was cut.

    Args:
      w: matrices [out, in], any float dtype.
      dtype: to compute in.
      room: on the host, where the blocks V_l go, and what else may wait for its turn there; by default all is on the
        device.
      rank: keep so many of the largest singular values only, found by a randomised range finder; s is then too
        low by up to what that misses.
    """
    layers, _, fan_in = w.shape
    unit = unit_scale(w, dtype)
    r, size, energy = kept_rank(w.shape, rank), searched(w.shape, rank), None
    if size is None:
        ut = left_vectors(w, unit, dtype, room)
    else:
        q, energy = find_range(w, size, unit, dtype)
        ut = dot(left_vectors(Projected(q, w, unit), 1.0, dtype, room)[:r], q)
        del q
    v: Blocks = jnp.zeros((layers, r, fan_in), dtype) if room is None else room.rows((layers, r, fan_in))
    squares = jnp.zeros(r, dtype)
    for number, w_l in enumerate(each(w)):
        block, square = _project(ut, w_l, unit, r)
        v, squares = store(v, number, block), squares + square
    s, kept, scale = _singular_values(squares, unit)
    for number in reversed(range(layers)):  # the last ones may still be at hand
        v = store(v, number, _scale_rows(v[number], scale))
    error = None if energy is None else _left_out(squares, kept, energy)
    return LayerSVD(u=ut[:r].T, s=s, v=v, kept=kept, error=error)


def unit_scale(w: Layers, dtype: DTypeLike = jnp.float32) -> Float[Array, ""]:
    """The power of two that brings the largest entry near 1: squares of very large or small weights leave `dtype`.

    Such a product rounds nothing, so that weights of any size have the same directions, bit for bit.
    """
    limit = -jnp.finfo(dtype).minexp
    exponent = jnp.frexp(_largest([_largest_entry(w_l) for w_l in each(w)]).astype(dtype))[1]
    return jnp.ldexp(jnp.ones((), dtype), jnp.clip(-exponent, -limit, limit))


def _largest(values):
    return jnp.max(jnp.stack(values))


@jax.jit
def _largest_entry(w_l):
    return jnp.max(jnp.abs(w_l))


def gram(w: Layers, scale: Float[Array, ""] | float = 1.0, dtype: DTypeLike = jnp.float32) -> Float[Array, "out out"]:
    """sum_l W_l W_l^T of scale W in `dtype`, up to and including its diagonal; blocks that lie above it stay 0.

    An eigensolver reads no more of a symmetric matrix, and at 2816 rows it is five eighths of the work.
    """
    total = jnp.zeros((w.shape[1], w.shape[1]), dtype)
    for w_l in each(w):
        total = jax.block_until_ready(_add_gram(total, w_l, scale))  # so that no layer is read before it is due
    return total


@functools.partial(jax.jit, donate_argnums=0)
def _add_gram(total, w_l, scale):
    return _plus_gram(total, scale * w_l.astype(total.dtype))


def _plus_gram(total, b):
    edges = np.linspace(0, len(b), 3 + len(b) // 1024, dtype=int).tolist()  # few: small products are slow ones
    for start, end in itertools.pairwise(edges):
        total = total.at[start:end, :end].add(dot(b[start:end], b[:end].T))
    return total


def left_vectors(
    w: Layers, unit: Float[Array, ""] | float = 1.0, dtype: DTypeLike = jnp.float32, room: Room | None = None
) -> Float[Array, "out out"]:
    """Transposed left singular vectors U^T (rows, by descending singular value) of the layers side by side.

    `unit` times the layers is what is worked on. See `layer_svd` for the others.
    """
    ut, energies = descending_eigh(gram(w, unit, dtype))
    rank_bound = min(w.shape[1], w.shape[0] * w.shape[2])
    mixed, cut = tail_ratio(dtype) ** 2, cut_ratio(dtype) ** 2
    # On the host: `lax.while_loop` would have every input compile the rotation, and vmap would have it run it.
    energies, first = np.array(energies), 0
    lowest = cut * energies[0]
    while mixed * energies[first] > lowest:
        clear = np.count_nonzero(energies >= mixed * energies[first])
        if clear >= rank_bound:
            break
        waiting = Waiting(ut, room)
        del ut
        ut, rotated = _rotate_tail(waiting, clear, w, unit)
        energies[clear:], first = rotated[: len(energies) - clear], clear
    return ut


def _rotate_tail(waiting, clear, w, unit):
    """Diagonalises the layers inside the span of the rows of U^T from `clear` on; the other rows stay as they are.

    Works on the last quarters of the rows that hold the tail: sizes are few, and so are programs. Also returns the
    eigenvalues, the tail's first.
    """
    ut = waiting.take()
    quarter = -(-len(ut) // QUARTERS)
    first = max(0, len(ut) - -(-(len(ut) - clear) // quarter) * quarter)
    rows, tail = ut[first:], np.arange(first, len(ut)) >= clear
    del ut
    total = jnp.zeros((len(rows), len(rows)), rows.dtype)
    for w_l in each(w):
        total = jax.block_until_ready(_add_tail_gram(total, rows, tail, w_l, unit))
    del rows, w_l
    rotation, energies = descending_eigh(_head_last(total, tail))
    ut = waiting.take()
    rotated = dot(_tail_only(rotation, tail), ut[first:])
    del rotation
    return _with_tail(ut, rotated, tail), np.asarray(energies)


@functools.partial(jax.jit, donate_argnums=0)
def _add_tail_gram(total, rows, tail, w_l, unit):
    return _plus_gram(total, jnp.where(tail[:, None], dot(rows, unit * w_l.astype(rows.dtype)), 0))


@functools.partial(jax.jit, donate_argnums=0)
def _head_last(g, tail):
    """The head gets an eigenvalue below all of the tail's, none of which is negative beyond rounding: so its (unit)
    eigenvectors come last, however steep the tail is, and drop out."""
    largest = jnp.max(jnp.diagonal(g))
    return g + jnp.diag(jnp.where(tail, 0, -jnp.where(largest > 0, largest, 1)))


# Apart, each in the memory of its first argument: three matrices of this size are alive at a time, and not five.
@functools.partial(jax.jit, donate_argnums=0)
def _tail_only(rotation, tail):
    return jnp.where(tail, rotation, 0)


@functools.partial(jax.jit, donate_argnums=0)
def _with_tail(ut, rotated, tail):
    """U^T with the tail's rows from `rotated`, where they come first; both end with the tail."""
    first = len(ut) - len(rotated)
    rows = jnp.where(tail[:, None], jnp.roll(rotated, jnp.sum(~tail), axis=0), ut[first:])
    return ut.at[first:].set(rows)


def descending_eigh(g: Float[Array, "n n"]) -> tuple[Float[Array, "n n"], Float[Array, " n"]]:
    """Eigenvectors as rows and eigenvalues of a symmetric matrix given by its lower triangle, largest first.

    Consumes `g`. On a CPU by LAPACK in the matrix's own memory, with twice as much for its workspace: XLA's call of the
    same routine keeps the matrix besides.
    """
    if jax.default_backend() != "cpu":
        return _device_eigh(g)
    lower = np.array(g)
    g.delete()
    n = len(lower)
    driver = "evd" if 1 + 6 * n + 2 * n * n < 2**31 else "evr"  # divide and conquer, while 32 bits count its workspace
    # Read by columns, as LAPACK does, it is the upper triangle.
    values, vectors = scipy.linalg.eigh(lower.T, lower=False, overwrite_a=True, check_finite=False, driver=driver)
    return jnp.asarray(np.ascontiguousarray(vectors.T[::-1])), jnp.asarray(values[::-1])


@functools.partial(jax.jit, donate_argnums=0)
def _device_eigh(g):
    values, vectors = jnp.linalg.eigh(g, symmetrize_input=False)
    return vectors.T[::-1], values[::-1]


@functools.partial(jax.jit, static_argnums=3)
def _project(ut, w_l, unit, r):
    """The first r rows of U^T unit W_l, and the sum of the squares of each."""
    block = dot(ut, unit * w_l.astype(ut.dtype))[:r]
    return block, jnp.sum(jnp.square(block), axis=1)


@jax.jit
def _singular_values(squares, unit):
    """s, which directions count, and what brings the rows of U^T unit W to those of V."""
    s = jnp.sqrt(squares)
    kept = s > cut_ratio(s.dtype) * jnp.max(s)
    return jnp.where(kept, s, 0) / unit, kept, jnp.where(kept, 1 / jnp.where(kept, s, 1), 0)


@jax.jit
def _left_out(squares, kept, energy):
    inside = jnp.where(energy > 0, jnp.sum(jnp.where(kept, squares, 0)) / jnp.where(energy > 0, energy, 1), 1)
    return jnp.sqrt(jnp.maximum(1 - inside, 0))


@jax.jit
def _scale_rows(block, scale):
    return block * scale[:, None]


def svd_programs(w: jax.ShapeDtypeStruct, rank: int | None = None) -> list[Ahead]:
    """What `layer_svd` runs for float32 or narrower layers of this shape [layers, out, in], refinements left out; on a
    CPU the eigenvectors are LAPACK's.
    """
    _, out, fan_in = w.shape
    _, s, v, _ = svd_shapes(w, rank)
    r, w_l, unit = len(s), jax.ShapeDtypeStruct((out, fan_in), w.dtype), jax.ShapeDtypeStruct((), jnp.float32)
    found, g, ut, summed = [], square(out), square(out), w_l
    if (size := searched(w.shape, rank)) is not None:
        found, g, ut = range_programs(w_l, size), square(size), jax.ShapeDtypeStruct((r, out), jnp.float32)
        summed = jax.ShapeDtypeStruct((size, fan_in), jnp.float32)
    block = jax.ShapeDtypeStruct(v.shape[1:], jnp.float32)
    return [
        Ahead("largest entry", _largest_entry, (w_l,)),
        *found,
        Ahead("Gram matrix", _add_gram, (g, summed, unit)),
        Ahead("eigenvectors", _device_eigh, (g,)),
        Ahead("projection", _project, (ut, w_l, unit, r)),
        Ahead("singular values", _singular_values, (s, unit)),
        Ahead("rows of V", _scale_rows, (block, s)),
    ]


def refinement_programs(w: jax.ShapeDtypeStruct) -> list[Ahead]:
    """What `layer_svd` runs besides, at worst, where small singular values want a second eigendecomposition."""
    _, out, fan_in = w.shape
    ut, tail, unit = square(out), jax.ShapeDtypeStruct((out,), bool), jax.ShapeDtypeStruct((), jnp.float32)
    w_l = jax.ShapeDtypeStruct((out, fan_in), w.dtype)
    return [
        Ahead("refinement's Gram matrix", _add_tail_gram, (ut, ut, tail, w_l, unit)),
        Ahead("refinement's rotation", jax.jit(dot), (ut, ut)),
    ]


def square(n: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((n, n), jnp.float32)


def svd_shapes(w: jax.ShapeDtypeStruct, rank: int | None = None) -> tuple[jax.ShapeDtypeStruct, ...]:
    """Of u, s, v and kept, for layers of this shape [layers, out, in]."""
    layers, out, fan_in = w.shape
    r = kept_rank(w.shape, rank)
    shapes = (out, r), (r,), (layers, r, fan_in)
    return *(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes), jax.ShapeDtypeStruct((r,), bool)
