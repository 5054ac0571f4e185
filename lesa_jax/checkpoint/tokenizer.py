"""The checkpoint's own tokenizer, and whether it belongs to the model."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from lesa_jax.base.errors import InputError

# What transformers may read a tokenizer from. It passes over what is no file without a word.
FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
    "chat_template.jinja",
    "chat_template.json",
)


@runtime_checkable
class Tokenizer(Protocol):
    """The part of a transformers tokenizer that evaluation uses."""

    def __call__(self, text: Any, *, verbose: bool) -> Any: ...


def load_tokenizer(folder: Path) -> Tokenizer:
    """The checkpoint's own tokenizer; code that comes with a checkpoint is never run.

    Raises InputError for one that is missing or damaged.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerBase  # seconds to import; bad input is found before

    for file in (folder / name for name in FILES):
        if (file.exists() or file.is_symlink()) and not file.is_file():
            raise InputError(f"{file}: is not a file; put the tokenizer's own there, or remove it")
    with tokenizer_errors(f"{folder}: no usable tokenizer", "put its own tokenizer files beside the weights"):
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        if not isinstance(tokenizer, PreTrainedTokenizerBase):
            raise TypeError(f"tokenizer_class is {type(tokenizer).__name__}")
        tokenizer("", verbose=False)  # some damage shows no sooner
    return tokenizer


@contextmanager
def tokenizer_errors(what: str, remedy: str) -> Iterator[None]:
    """A block in which whatever the tokenizer's libraries raise becomes an InputError: `what (reason); remedy`.

    They raise bare exceptions, and where their Rust code panics one that is not even an `Exception`.
    """
    try:
        yield
    except (InputError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        reason = f"{type(error).__name__}: {error}".split("\n")[0]
        raise InputError(f"{what} ({reason}); {remedy}") from None


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
