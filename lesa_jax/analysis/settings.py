"""The options of `python -m lesa_jax.analyze`."""

from dataclasses import dataclass
from pathlib import Path

from lesa_jax.base.errors import InputError
from lesa_jax.base.settings import free
from lesa_jax.base.units import parse_count

FEWEST = 64  # tokens


@dataclass(frozen=True)
class AnalyzeSettings:
    """See what a model's layers do on a text: how deep it effectively is, and where a new layer would matter.

    The model is read layer by layer, a few times; a grown one has its new layers marked. Without options: the demo
    model, on modules of Python's standard library that it has not seen.

    Examples:
      python -m lesa_jax.analyze --model ./my-model --text held-out.txt --output analysis
      python -m lesa_jax.analyze --model ./grown --base ./my-model --text held-out.txt --output analysis
    """

    model: str | None = None
    """Folder with config.json and safetensors, or a hub id (org/name). By default the demo model."""
    text: Path | None = None
    """UTF-8 text whose first tokens are looked at. By default the demo model's."""
    output: Path = free(Path("analysis"))
    """Folder to create."""
    base: str | None = None
    """The model that a grown one was grown from, folder or hub id: it is looked at, too, and shown beside it."""
    tokens: str = "2048"
    """How many of them: more make means steadier, and take longer in proportion."""
    revision: str | None = None
    """Branch, tag or commit, for a hub id."""
    overwrite: bool = free(False)
    """Replace an earlier output of this program."""
    debug: bool = free(False)
    """Show where an error came from, not only what it is."""


def check_settings(settings: AnalyzeSettings) -> int:
    """The number of tokens.

    Raises:
      InputError: too few, or a model without a text.
    """
    tokens = parse_count("--tokens", settings.tokens)
    if tokens < FEWEST:
        raise InputError(f"--tokens {settings.tokens}: at least {FEWEST}")
    if settings.model is not None and settings.text is None:
        raise InputError("--text: name a text that the layers are to be looked at on")
    return tokens
