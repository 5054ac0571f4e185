"""Thin SVD of a model's L matrices of one kind laid side by side, from their Gram matrix.

LESA (arXiv 2502.13794, section 3.1) decomposes [W_0 | W_1 | ... | W_{L-1}], each W_l [out, in], into U diag(S) V^T and
works on the blocks V_l [r, in] of V^T. The public code forms the concatenation [out, L*in] and calls an SVD on it. Only
U and S couple the layers, and both come from the Gram matrix sum_l W_l W_l^T [out, out], which is summed layer by
layer; the block of one layer is then V_l = S^-1 U^T W_l. That replaces an SVD by an eigendecomposition that does not
grow with L, and matrix products.

Precision. A Gram matrix squares the condition number, so in float32 the eigenvectors of singular values below about
0.05 sigma_1 are mixed with one another (hardly with the large ones: those gaps are wide). The cure is deflation:
project the layers onto that mixed tail, take the tail's own Gram matrix, whose largest entry is now 400 times smaller
or more, and rotate the tail by its eigenvectors; and so on with the tail's own tail, down to what counts as null.
Singular values are then the row norms of U^T W, Rayleigh quotients whose error is quadratic in what mixing is left.
Inputs without such a tail do not pay.
"""

import functools
import itertools

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from lesa_jax.initializers.lesa.ahead import Ahead
from lesa_jax.initializers.matrices import dot


@flax.struct.dataclass
class LayerSVD:
    """[W_0 | ... | W_{L-1}] = u @ diag(s) @ [v_0 | ... | v_{L-1}], r = min(out, L*in).

    Singular values descend up to rounding. The sign of a direction is whatever the eigensolver returns. Directions that
    float arithmetic cannot tell from null ones (`kept` false) have s = 0 and v = 0; their columns of u are orthonormal
    all the same.
    """

    u: Float[Array, "*kinds out r"]
    s: Float[Array, "*kinds r"]
    v: Float[Array, "*kinds layers r in"]
    kept: Bool[Array, "*kinds r"]


def cut_ratio(dtype: DTypeLike) -> float:
    """sigma / sigma_1 at or below which a direction counts as null: 1.0e-5 in float32, 4.5e-10 in float64."""
    return 0.03 * float(jnp.finfo(dtype).eps) ** 0.5


def tail_ratio(dtype: DTypeLike) -> float:
    """sigma / sigma_1 below which the first eigenvectors are refined: 0.05 in float32, 3e-4 in float64."""
    return 2.7 * float(jnp.finfo(dtype).eps) ** 0.25


def unit_scale(w: Float[Array, "layers out in"], dtype: DTypeLike = jnp.float32) -> Float[Array, ""]:
    """The power of two that brings the largest entry near 1: squares of very large or small weights leave `dtype`.

    Such a product rounds nothing, so that weights of any size have the same directions, bit for bit.
    """
    limit = -jnp.finfo(dtype).minexp
    exponent = jnp.frexp(jnp.max(jnp.abs(w)).astype(dtype))[1]
    return jnp.ldexp(jnp.ones((), dtype), jnp.clip(-exponent, -limit, limit))


def gram(
    w: Float[Array, "layers out in"], scale: Float[Array, ""] | float = 1.0, dtype: DTypeLike = jnp.float32
) -> Float[Array, "out out"]:
    """sum_l W_l W_l^T of scale W in `dtype`, up to and including its diagonal; blocks that lie above it stay 0.

    An eigensolver reads no more of a symmetric matrix, and at 2816 rows it is five eighths of the work. A half
    precision layer is cast when its turn comes, never the stack.
    """
    return _sum_gram(lambda w_l: scale * w_l.astype(dtype), w, dtype)


def _sum_gram(rows_of, w, dtype):
    """`gram` of rows_of(W_l)."""
    out = w.shape[1]
    edges = np.linspace(0, out, 3 + out // 1024, dtype=int).tolist()  # few: small products are slow ones

    def add(total, w_l):
        b = rows_of(w_l)
        for start, end in itertools.pairwise(edges):
            total = total.at[start:end, :end].add(dot(b[start:end], b[:end].T))
        return total, None

    return lax.scan(add, jnp.zeros((out, out), dtype), w)[0]


def left_vectors(w: Float[Array, "layers out in"], dtype: DTypeLike = jnp.float32) -> Float[Array, "out out"]:
    """Transposed left singular vectors U^T (rows, by descending singular value) of the layers side by side."""
    ut, energies = _gram_eigh(w, jnp.dtype(dtype))
    rank_bound = min(w.shape[1], w.shape[0] * w.shape[2])
    mixed, cut = tail_ratio(dtype) ** 2, cut_ratio(dtype) ** 2
    # On the host: `lax.while_loop` would have every input compile the rotation, and vmap would have it run it.
    energies, first = np.array(energies), 0
    lowest = cut * energies[0]
    while mixed * energies[first] > lowest:
        clear = np.count_nonzero(energies >= mixed * energies[first])
        if clear >= rank_bound:
            break
        ut, rotated = _rotate_tail(ut, np.arange(len(energies)) >= clear, w)
        energies[clear:], first = rotated[: len(energies) - clear], clear
    return ut


def layer_svd(w: Float[Array, "layers out in"], dtype: DTypeLike = jnp.float32) -> LayerSVD:
    """SVD of the layers side by side, in `dtype` (float64 needs `jax.enable_x64`). Not for use inside `jax.jit`.

    Measured on float32 inputs of condition number up to 1e4: singular values within 1e-4 relative of float64 LAPACK.
    On any input: U^T U within 1e-5 of the identity, ||W - U S V||_F / ||W||_F below 2e-6 and what was cut. Consumes
    `w`: its buffer becomes that of v when shape and dtype allow.
    """
    return _project(left_vectors(w, dtype), w)


def svd_programs(w: jax.ShapeDtypeStruct) -> list[Ahead]:
    """What `layer_svd` runs for float32 or narrower layers of this shape [layers, out, in], refinements left out."""
    ut = jax.ShapeDtypeStruct((w.shape[1], w.shape[1]), jnp.float32)
    return [
        Ahead("eigenvectors of the Gram matrix", _gram_eigh, (w, jnp.dtype(jnp.float32))),
        Ahead("projection", _project, (ut, w)),
    ]


def refinement_programs(w: jax.ShapeDtypeStruct) -> list[Ahead]:
    """What `layer_svd` runs besides where small singular values want a second eigendecomposition."""
    out = w.shape[1]
    ut, tail = jax.ShapeDtypeStruct((out, out), jnp.float32), jax.ShapeDtypeStruct((out,), bool)
    return [Ahead("refinement", _rotate_tail, (ut, tail, w))]


def svd_shapes(w: jax.ShapeDtypeStruct) -> tuple[jax.ShapeDtypeStruct, ...]:
    """Of u, s, v and kept, for layers of this shape [layers, out, in]."""
    layers, out, fan_in = w.shape
    r = min(out, layers * fan_in)
    shapes = (out, r), (r,), (layers, r, fan_in)
    return *(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes), jax.ShapeDtypeStruct((r,), bool)


@functools.partial(jax.jit, static_argnums=1)
def _gram_eigh(w, dtype):
    """Eigenvectors of the Gram matrix as rows, and its eigenvalues, largest first."""
    return _descending_eigh(gram(w, unit_scale(w, dtype), dtype))


@functools.partial(jax.jit, donate_argnums=1)
def _project(ut, w):
    layers, out, fan_in = w.shape
    unit = unit_scale(w, ut.dtype)

    def project(layer, b):  # in place: one loop-carried stack, so that W and V never exist side by side
        return b.at[layer].set(dot(ut, unit * b[layer]))

    b = lax.fori_loop(0, layers, project, w.astype(ut.dtype))
    r = min(out, layers * fan_in)
    b = b[:, :r]
    s = jnp.sqrt(jnp.sum(jnp.square(b), axis=(0, 2)))
    kept = s > cut_ratio(ut.dtype) * jnp.max(s)
    scale = jnp.where(kept, 1 / jnp.where(kept, s, 1), 0)
    return LayerSVD(u=ut[:r].T, s=jnp.where(kept, s, 0) / unit, v=b * scale[None, :, None], kept=kept)


def _descending_eigh(g):
    """Eigenvectors as rows and eigenvalues of a symmetric matrix given by its lower triangle, largest first."""
    values, vectors = jnp.linalg.eigh(g, symmetrize_input=False)
    return vectors.T[::-1], values[::-1]


@jax.jit
def _rotate_tail(ut, tail, w):
    """Diagonalises the layers inside the span of the `tail` rows of U^T; the other rows stay as they are.

    Also returns the eigenvalues, the tail's first.
    """
    unit = unit_scale(w, ut.dtype)
    g = _sum_gram(lambda w_l: jnp.where(tail[:, None], dot(ut, unit * w_l.astype(ut.dtype)), 0), w, ut.dtype)
    # The head gets an eigenvalue below all of the tail's, none of which is negative beyond rounding: so its (unit)
    # eigenvectors come last, however steep the tail is, and drop out.
    largest = jnp.max(jnp.diagonal(g))
    head = jnp.where(tail, 0, -jnp.where(largest > 0, largest, 1))
    rotation, energies = _descending_eigh(g + jnp.diag(head))
    rotation = jnp.where(tail, jnp.roll(rotation, jnp.sum(~tail), axis=0), 0)
    return jnp.where(tail[:, None], dot(rotation, ut), ut), energies
