"""The options of `python -m lesa_jax.evaluate`."""

from dataclasses import dataclass
from pathlib import Path

from lesa_jax.base.settings import free
from lesa_jax.evaluation.protocol import PplProtocol


@dataclass(frozen=True)
class EvaluateSettings:
    """Measure a checkpoint's perplexity on a text, in the families that run here.

    Without options: the demo model, on modules of Python's standard library that it has not seen.
    """

    model: str | None = None
    """Folder with config.json and safetensors, or a hub id (org/name). By default the demo model."""
    text: Path | None = None
    """UTF-8 text file. Encoder-decoders: JSON lines with input and target, whose targets are measured; or any text,
    which is made into such pairs by T5's span corruption."""
    ppl_protocol: PplProtocol = "corpus"
    """corpus: exp(loss per token of the whole text). line: mean over lines of exp(loss of the line), as in LESA."""
    sequence_length: int | None = None
    """Tokens per window, or at most per line; by default 1024, or 2048 for lines, or fewer if the model has fewer
    positions."""
    batch_size: int = 8
    """Windows or lines computed at once."""
    loop: str | None = None
    """Run some layers several times in a row: 8-11x2 runs layers 8 to 11 (of 0, 1, ...) twice in all. Takes memory for
    as many layers as run."""
    revision: str | None = None
    """Branch, tag or commit, for a hub id."""
    debug: bool = free(False)
    """Show where an error came from, not only what it is."""
