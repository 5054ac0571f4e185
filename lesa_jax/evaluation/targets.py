"""The perplexity of what an encoder-decoder is to write: of targets, each with its source.

A text of JSON lines with "input" and "target" is pairs; any other is made into pairs by span corruption, as T5 learned
from plain text, and always by the same one. Every token of a target counts, its end-of-text token included.
"""

import functools
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.tokenizer import Tokenizer, check_vocabulary, tokenizer_errors
from lesa_jax.data.corruption import find_corruption, pieces
from lesa_jax.data.pairs import Pair, texts_of
from lesa_jax.data.sources import Record
from lesa_jax.data.tokens import cut, encode_pairs
from lesa_jax.evaluation.perplexity import Perplexity, summarise
from lesa_jax.evaluation.protocol import PplProtocol, row_length
from lesa_jax.families.model import ModelConfig
from lesa_jax.models.buckets import bucket_of, by_shape, padded
from lesa_jax.models.decoder import head
from lesa_jax.models.encoder_decoder import forward, shifted_right, whole_rows
from lesa_jax.models.losses import token_nll

# (sources, which of their tokens count, targets) -> the loss of each token of the targets, in nats.
PairNll: TypeAlias = Callable[[np.ndarray, np.ndarray, np.ndarray], Float[Array, "batch target"]]


def target_pairs(
    tokenizer: Tokenizer, text: str, protocol: PplProtocol, config: ModelConfig, sequence_length: int | None = None
) -> list[Pair]:
    """The text as pairs, of at most `sequence_length` tokens in either part.

    Raises InputError for a length beyond the model's positions, for lines that are no pairs, and for a tokenizer
    without sentinels where the text is to be corrupted.
    """
    length = row_length(protocol, config, sequence_length)
    with tokenizer_errors("the model's tokenizer cannot tokenise the text", "repair or replace tokenizer.json"):
        if is_pairs(text):
            encoded = encode_pairs([texts_of(record) for record in records(text)], tokenizer)
            pairs = [Pair(cut(source, length), cut(target, length)) for source, target in encoded]
        else:
            corruption = find_corruption(tokenizer)
            call: Any = tokenizer
            ids = call(text, add_special_tokens=False, verbose=False)["input_ids"]
            chunks = pieces(ids, corruption.lengths(length)[0])
            pairs = [corruption.corrupt(chunk, number) for number, chunk in enumerate(chunks)]
    pairs = [pair for pair in pairs if len(pair.source) and len(pair.target)]
    largest = (int(max(pair.source.max(), pair.target.max())) for pair in pairs)
    check_vocabulary(max(largest, default=0), config.vocab_size)
    return pairs


def is_pairs(text: str) -> bool:
    """Whether a text's first line is a JSON object with a target."""
    first = text.lstrip().split("\n", 1)[0]
    try:
        fields = json.loads(first) if first.startswith("{") else None
    except (ValueError, RecursionError):
        return False
    return isinstance(fields, dict) and "target" in fields


def records(text: str) -> Iterator[Record]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                fields = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InputError(
                    f"line {number} of the text: is not JSON ({error}); expected one object a line"
                ) from None
            if not isinstance(fields, dict):
                raise InputError(f"line {number} of the text: is no JSON object; expected one with input and target")
            yield Record(fields, f"line {number} of the text")


def target_perplexity(
    nll_of: PairNll,
    pairs: Sequence[Pair],
    protocol: PplProtocol,
    batch_size: int,
    advance: Callable[[int], None] = lambda rows: None,
) -> Perplexity:
    """Perplexity of targets; by the protocol "line" the mean over pairs. See `perplexity.perplexity_of`."""
    size = min(batch_size, max(len(pairs), 1))
    sums, counts = [], []
    for batch in batches_of_like_lengths(pairs, size):
        sources, targets = (padded([getattr(pair, side) for pair in batch], size) for side in ("source", "target"))
        nll_BxT = np.asarray(nll_of(*sources, targets[0]))
        sums += np.where(targets[1], nll_BxT, 0.0).sum(axis=1, dtype=np.float64).tolist()[: len(batch)]
        counts += [len(pair.target) for pair in batch]
        advance(len(batch))
    return summarise(sums, counts, protocol)


def batches_of_like_lengths(pairs: Sequence[Pair], size: int) -> Iterator[list[Pair]]:
    """Pairs whose texts share their buckets, so that they share a compiled program and have little padding."""
    shapes = [(bucket_of(len(pair.source)), bucket_of(len(pair.target))) for pair in pairs]
    return ([pairs[number] for number in members] for members in by_shape(shapes, size))


def model_pair_nll(params: dict[str, Any], config: ModelConfig) -> PairNll:
    """The losses of a model's targets, computed in float32 whatever the weights' dtype."""

    def nll_of(sources: np.ndarray, counted: np.ndarray, targets: np.ndarray) -> Array:
        with jax.default_matmul_precision("highest"):
            return _batch_nll(params, sources, counted, targets, config)

    return nll_of


@functools.partial(jax.jit, static_argnames="config")
def _batch_nll(
    params: dict[str, Any],
    sources_BxS: Int[Array, "batch source"],
    counted_BxS: Bool[Array, "batch source"],
    targets_BxT: Int[Array, "batch target"],
    config: ModelConfig,
) -> Float[Array, "batch target"]:
    """Padding of targets needs no mask: it comes later than all that counts."""
    read = whole_rows(shifted_right(targets_BxT, config))
    hidden_BxTxE = forward(params, whole_rows(sources_BxS, counted_BxS), read, config, jnp.float32)
    return token_nll(hidden_BxTxE, head(params, config), targets_BxT)
