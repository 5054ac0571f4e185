"""A checkpoint that goes on with a text, from its settings to its result.

Computes in float32, on accelerators at full matrix precision, from weights kept in their stored dtype.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lesa_jax import demo
from lesa_jax.base.errors import InputError
from lesa_jax.base.settings import by_name, check_seed
from lesa_jax.checkpoint.hub import resolve_model
from lesa_jax.checkpoint.reader import open_checkpoint
from lesa_jax.checkpoint.tokenizer import check_vocabulary, load_tokenizer, tokenizer_errors
from lesa_jax.data.chat import check_chat
from lesa_jax.decoding.answer import answers
from lesa_jax.decoding.continuation import continuations
from lesa_jax.decoding.ends import end_tokens
from lesa_jax.decoding.sampling import Sampling
from lesa_jax.decoding.settings import GenerateSettings
from lesa_jax.models.config import read_model
from lesa_jax.models.load import load_model


@dataclass(frozen=True)
class Generated:
    """What a model wrote.

    Attributes:
      prompt: what it read, by the chat template if there was one.
      text: what it wrote behind that, or of an encoder-decoder, about that.
      tokens: the same.
    """

    prompt: str
    text: str
    tokens: tuple[int, ...]


@by_name(GenerateSettings)
def generate(settings: GenerateSettings) -> Generated:
    """What `settings.model` writes behind `settings.prompt`.

    Raises:
      InputError: no such model, one that has no forward pass here, options that make no sense.
    """
    return telling(settings, lambda text: None)


def telling(settings: GenerateSettings, tell: Callable[[str], None]) -> Generated:
    """`generate`, where `tell` is given the prompt, and piece by piece what is written behind it."""
    check_seed(settings.seed)
    sampling = Sampling(settings.temperature, settings.top_p)
    if settings.max_tokens < 1:
        raise InputError(f"--max-tokens {settings.max_tokens}: expected at least 1")
    folder = resolve_model(demo.named(settings.model), settings.revision)
    config = read_model(open_checkpoint(folder))
    tokenizer: Any = load_tokenizer(folder)
    reads = config.encoder is not None
    prompt, tokens = prompt_tokens(tokenizer, settings, reads)
    check_vocabulary(max(tokens), config.vocab_size)
    params, config = load_model(folder)
    if not reads:
        tell(prompt)
    told = text = ""
    written: list[int] = []
    options = settings.max_tokens, sampling, settings.seed, end_tokens(folder, tokenizer)
    steps = answers(params, config, tokens, *options) if reads else continuations(params, config, [tokens], *options)
    for [written] in steps:
        text = answer_text(tokenizer, written) if reads else behind(tokenizer, tokens, written)
        if not text.endswith("\ufffd"):  # half a character: the rest of its bytes comes with the next token
            tell(text.removeprefix(told))
            told = text
    tell(text.removeprefix(told))
    return Generated(prompt, text, tuple(written))


def prompt_tokens(tokenizer: Any, settings: GenerateSettings, whole: bool) -> tuple[str, list[int]]:
    """The text to go on with, and its tokens with those that the tokenizer puts before a text; of a `whole` text, which
    an encoder reads, also with what ends it.

    Raises InputError where there is not one token, and for a chat where the tokenizer has no template.
    """
    text = settings.prompt
    with tokenizer_errors("the model's tokenizer cannot tokenise the prompt", "repair or replace tokenizer.json"):
        if settings.chat:
            check_chat(tokenizer)
            message = {"role": "user", "content": text}
            text = tokenizer.apply_chat_template([message], tokenize=False, add_generation_prompt=True)
        tokens = tokenizer(text, verbose=False, add_special_tokens=not settings.chat)["input_ids"]
        # Some tokenizers end a text, as one that is only to be read; behind that would come another one.
        if len(tokens) > 1 and tokens[-1] == tokenizer.eos_token_id and not settings.chat and not whole:
            tokens = tokens[:-1]
    if not tokens:
        raise InputError("--prompt: has no tokens; give some text to go on with")
    return text, tokens


def behind(tokenizer: Any, before: list[int], written: list[int]) -> str:
    """The text of what was written. Some tokenizers leave a space out before a text's first word; so it is taken from
    the text of both."""
    known = tokenizer.decode(before, skip_special_tokens=True)
    return tokenizer.decode([*before, *written], skip_special_tokens=True).removeprefix(known)


def answer_text(tokenizer: Any, written: list[int]) -> str:
    """What a decoder has written, T5's sentinels too, which are special tokens, without what begins a text or fills."""
    left_out = {tokenizer.bos_token_id, tokenizer.pad_token_id}
    return tokenizer.decode([token for token in written if token not in left_out])


def show(result: Generated) -> None:
    """Ends the line of what was already told."""
    print(flush=True)


def say(text: str) -> None:
    """On stdout, at once."""
    sys.stdout.write(text)
    sys.stdout.flush()
