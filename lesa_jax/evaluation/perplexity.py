"""The loss of every predicted token of a text, and the perplexity that `protocol` makes of it."""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from lesa_jax.base.errors import InputError
from lesa_jax.evaluation.protocol import PplProtocol
from lesa_jax.families.model import ModelConfig
from lesa_jax.models.buckets import bucket_of, by_shape, padded
from lesa_jax.models.decoder import forward, head
from lesa_jax.models.losses import token_nll


class Window(NamedTuple):
    """A row of tokens: how many of them were predicted, and their mean loss in nats."""

    tokens: int
    nll: float


@dataclass(frozen=True)
class Perplexity:
    """A measured perplexity.

    Attributes:
      perplexity: by the protocol asked for.
      nll: mean negative log-likelihood of a predicted token, in nats, over all of them (in both protocols).
      tokens: how many tokens were predicted.
      windows: the rows, in an order that their lengths decide: the same for every model that has the tokenizer.
    """

    perplexity: float
    nll: float
    tokens: int
    windows: tuple[Window, ...]


def perplexity_of(
    nll_of: Callable[[Int[np.ndarray, "batch tokens"]], Float[Array, "batch predicted"]],
    rows: Sequence[Int[np.ndarray, " _"]],
    protocol: PplProtocol,
    batch_size: int,
    advance: Callable[[int], None] = lambda rows: None,
) -> Perplexity:
    """Perplexity of a model on token rows as `token_rows` makes them.

    Rows of similar length share a batch and a compiled program, so a second model of the same shapes compiles nothing.
    `nll_of` gives the loss of every token but the first of each row in nats (`model_nll`), `advance` is called with the
    number of rows just done.

    Raises InputError where nothing can be predicted or the loss is not a number.
    """
    batch_size = min(batch_size, max(len(rows), 1))
    sums, counts = [], []
    for nll_BxT, lengths_B in _row_losses(nll_of, rows, batch_size):
        predicted_BxT = np.arange(nll_BxT.shape[1])[None, :] < lengths_B[:, None] - 1
        sums += np.where(predicted_BxT, nll_BxT, 0.0).sum(axis=1, dtype=np.float64).tolist()
        counts += (lengths_B - 1).tolist()
        advance(len(lengths_B))
    return summarise(sums, counts, protocol)


def summarise(sums: Sequence[float], counts: Sequence[int], protocol: PplProtocol) -> Perplexity:
    """Perplexity by the summed losses of rows, and how many tokens were predicted in each.

    Raises InputError where nothing was predicted or the loss is not a number.
    """
    if not counts:
        raise InputError("the text has fewer than two tokens; give a longer one")
    total, tokens = math.fsum(sums), sum(counts)
    if math.isnan(total):
        raise InputError(
            "the model's loss is not a number; its weights hold NaN or infinite numbers, or grow beyond float32 on the "
            "way, as they do with another model's config.json; check both"
        )
    windows = tuple(Window(count, loss / count) for loss, count in zip(sums, counts, strict=True))
    exponents = np.array(total / tokens if protocol == "corpus" else [window.nll for window in windows])
    with np.errstate(over="ignore"):
        return Perplexity(float(np.mean(np.exp(exponents))), total / tokens, tokens, windows)


def _row_losses(
    nll_of: Callable[[np.ndarray], Array], rows: Sequence[np.ndarray], batch_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Per-token losses and row lengths of every batch; the device works on the next batch meanwhile."""
    pending: tuple[Array, np.ndarray] | None = None
    for tokens_BxT, lengths_B in _padded_batches(rows, batch_size):
        losses = nll_of(tokens_BxT)
        if pending is not None:
            yield _fetch(*pending)
        pending = losses, lengths_B
    if pending is not None:
        yield _fetch(*pending)


def _fetch(nll_BxT: Array, lengths_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(nll_BxT)[: len(lengths_B)], lengths_B


def model_nll(
    params: dict[str, Any], config: ModelConfig
) -> Callable[[Int[np.ndarray, "batch tokens"]], Float[Array, "batch predicted"]]:
    """The losses of a model's predictions, computed in float32 whatever the weights' dtype."""

    def nll_of(tokens_BxT: np.ndarray) -> Array:
        with jax.default_matmul_precision("highest"):
            return _batch_nll(params, tokens_BxT, config)

    return nll_of


@functools.partial(jax.jit, static_argnames="config")
def _batch_nll(
    params: dict[str, Any], tokens_BxT: Int[Array, "batch tokens"], config: ModelConfig
) -> Float[Array, "batch predicted"]:
    hidden_BxTxE = forward(params, tokens_BxT, config, jnp.float32)
    return token_nll(hidden_BxTxE[:, :-1], head(params, config), tokens_BxT[:, 1:])


def _padded_batches(rows: Sequence[np.ndarray], batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """[batch_size, bucket] tokens, padded on the right, where no causal prediction sees it; and the rows' lengths."""
    longest = max(map(len, rows), default=0)
    buckets = [min(longest, bucket_of(len(row))) for row in rows]
    for members in by_shape(buckets, batch_size):
        tokens_BxT, _ = padded([rows[number] for number in members], batch_size, buckets[members[0]])
        yield tokens_BxT, np.array([len(rows[number]) for number in members])
