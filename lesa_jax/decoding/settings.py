"""The options of `python -m lesa_jax.generate`."""

from dataclasses import dataclass

from lesa_jax.base.settings import free


@dataclass(frozen=True)
class GenerateSettings:
    """Let a checkpoint go on with a text, to see what it is like.

    Without options: the demo model, on the beginning of a Python function.
    """

    model: str | None = None
    """Folder with config.json and safetensors, or a hub id (org/name). By default the demo model."""
    prompt: str = "def "
    """The text to go on with; an encoder-decoder reads it, and writes about it."""
    chat: bool = False
    """Put the text to the model as a user's message, by its own chat template."""
    max_tokens: int = 64
    """Tokens that are written at most."""
    temperature: float = 0.0
    """0 takes the likeliest token, 1 draws by the model's probabilities."""
    top_p: float = 1.0
    """Draw only from the likeliest tokens that make up this probability together."""
    seed: int = 0
    """Of what is drawn."""
    revision: str | None = None
    """Branch, tag or commit, for a hub id."""
    debug: bool = free(False)
    """Show where an error came from, not only what it is."""
