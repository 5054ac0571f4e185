"""Perplexity, by the two protocols in use.

corpus: the whole text is one row of tokens, cut into windows that do not overlap; each window predicts its second to
  last token, the last and shorter window too; perplexity = exp(total nll / predicted tokens).
line (arXiv 2502.13794): the arithmetic mean over the non-empty lines of exp(mean nll of the line), each line cut to
  2,048 tokens. Rare hard lines dominate it; do not compare its values with the corpus protocol's.

Special tokens are those that the tokenizer adds by itself: Llama's begin-of-text once before the corpus, or before
each line. A row with fewer than two tokens predicts nothing and is left out.
"""

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from lesa_jax.errors import InputError
from lesa_jax.losses import token_nll
from lesa_jax.models import ModelConfig, forward, head_weight

PplProtocol = Literal["corpus", "line"]

# Tokens of a window and of a line, unless the model has fewer positions.
DEFAULT_LENGTHS: dict[PplProtocol, int] = {"corpus": 1024, "line": 2048}
SHORTEST_BUCKET = 32


@runtime_checkable
class Tokenizer(Protocol):
    """The part of a transformers tokenizer that is used here."""

    def __call__(self, text: Any, *, verbose: bool) -> Any: ...


@dataclass(frozen=True)
class Perplexity:
    """A measured perplexity.

    Attributes:
      perplexity: by the protocol asked for.
      nll: mean negative log-likelihood of a predicted token, in nats, over all of them (in both protocols).
      tokens: how many tokens were predicted.
    """

    perplexity: float
    nll: float
    tokens: int


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
    sums, counts = [], []
    for nll_BxT, lengths_B in _row_losses(nll_of, rows, batch_size):
        predicted_BxT = np.arange(nll_BxT.shape[1])[None, :] < lengths_B[:, None] - 1
        sums += np.where(predicted_BxT, nll_BxT, 0.0).sum(axis=1, dtype=np.float64).tolist()
        counts += (lengths_B - 1).tolist()
        advance(len(lengths_B))
    if not counts:
        raise InputError("the text has fewer than two tokens; give a longer one")
    total, tokens = math.fsum(sums), sum(counts)
    if math.isnan(total):
        raise InputError("the model's loss is not a number; its weights are damaged")
    exponents = np.array(total / tokens if protocol == "corpus" else np.divide(sums, counts))
    with np.errstate(over="ignore"):
        return Perplexity(float(np.mean(np.exp(exponents))), total / tokens, tokens)


def token_rows(
    tokenizer: Tokenizer, text: str, protocol: PplProtocol, config: ModelConfig, sequence_length: int | None = None
) -> list[Int[np.ndarray, " _"]]:
    """The text as the rows that the protocol predicts, each of 2 to `sequence_length` tokens.

    Raises InputError for a length beyond the model's positions, and for token ids beyond its embedding.
    """
    length = row_length(protocol, config, sequence_length)
    if protocol == "corpus":
        ids = np.asarray(tokenizer(text, verbose=False)["input_ids"], np.int32)
        rows = [ids[start : start + length] for start in range(0, len(ids), length)]
    else:
        lines = [line for line in text.split("\n") if line.strip()]
        encoded = tokenizer(lines, verbose=False)["input_ids"] if lines else []
        rows = [np.asarray(ids[:length], np.int32) for ids in encoded]
    rows = [row for row in rows if len(row) > 1]
    largest = max((int(row.max()) for row in rows), default=0)
    if largest >= config.vocab_size:
        raise InputError(
            f"the tokenizer gives token id {largest}, but config.json has vocab_size {config.vocab_size}; "
            "the tokenizer belongs to another model"
        )
    return rows


def row_length(protocol: PplProtocol, config: ModelConfig, sequence_length: int | None) -> int:
    """`sequence_length`, or the protocol's default; refused where the model has fewer positions."""
    positions = config.max_position_embeddings
    if sequence_length is None:
        return min(DEFAULT_LENGTHS[protocol], positions)
    if not 2 <= sequence_length <= positions:
        raise InputError(
            f"--sequence-length {sequence_length}: expected 2 to {positions}, the model's max_position_embeddings"
        )
    return sequence_length


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
    return token_nll(hidden_BxTxE[:, :-1], head_weight(params, config), tokens_BxT[:, 1:])


def _padded_batches(rows: Sequence[np.ndarray], batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """[batch_size, bucket] tokens, padded on the right, where no causal prediction sees it; and the rows' lengths."""
    if not rows:
        return
    longest = max(map(len, rows))
    by_bucket: dict[int, list[np.ndarray]] = {}
    for row in rows:
        by_bucket.setdefault(_bucket(len(row), longest), []).append(row)
    for bucket, members in sorted(by_bucket.items(), reverse=True):
        for batch in _groups(members, batch_size):
            tokens_BxT = np.zeros((batch_size, bucket), np.int32)
            for padded, row in zip(tokens_BxT, batch, strict=False):
                padded[: len(row)] = row
            yield tokens_BxT, np.array([len(row) for row in batch])


def _bucket(length: int, longest: int) -> int:
    """The next power of two: few programs are compiled, and at most half of a batch is padding."""
    return min(longest, max(SHORTEST_BUCKET, 1 << (length - 1).bit_length()))


def _groups(members: list[np.ndarray], size: int) -> Iterable[list[np.ndarray]]:
    return (members[start : start + size] for start in range(0, len(members), size))
