"""The checkpoint's own tokenizer, and whether it belongs to the model."""

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from lesa_jax.base.errors import InputError


@runtime_checkable
class Tokenizer(Protocol):
    """The part of a transformers tokenizer that evaluation uses."""

    def __call__(self, text: Any, *, verbose: bool) -> Any: ...


def load_tokenizer(folder: Path) -> Tokenizer:
    """The checkpoint's own tokenizer; code that comes with a checkpoint is never run."""
    from transformers import AutoTokenizer  # seconds to import, and a bad model or text is found before

    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).split("\n")[0]
        raise InputError(f"{folder}: no usable tokenizer ({reason}); put tokenizer.json beside the weights") from None


def check_vocabulary(largest: int, vocab_size: int) -> None:
    """Refuses a tokenizer that gives token ids beyond the model's embedding.

    Args:
      largest: the largest id that it gives, or may give.
      vocab_size: rows of the embedding.

    Raises:
      InputError: the tokenizer is another model's.
    """
    if largest >= vocab_size:
        raise InputError(
            f"the tokenizer gives token id {largest}, but config.json has vocab_size {vocab_size}; "
            "the tokenizer belongs to another model"
        )
