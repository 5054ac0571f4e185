"""Conversations as text in which the assistant's words are known.

Records are {"messages": [{"role", "content"}, ...]} or {"instruction", "input" (may be missing), "output"}. What is
learned of a conversation is every assistant turn, its end-of-turn token included. A number, true or false stands for
its JSON text, and null for what is missing; a message's content may also be a list of parts {"type": "text", "text"}.
"""

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from lesa_jax.base.errors import InputError
from lesa_jax.data.sources import Record, field_names
from lesa_jax.data.templates import Message, Spans, Templates

# A transformers PreTrainedTokenizerFast; its class takes seconds to import.
FastTokenizer = Any

# The prompts of Stanford Alpaca, for tokenizers without a chat template.
ALPACA_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
)
ALPACA = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:\n"
)


@dataclass(frozen=True)
class Conversation:
    """A rendered conversation.

    Attributes:
      text: all of it.
      spans: the character ranges [start, stop) of `text` that are the assistant's.
      templated: whether a chat template wrote it, special tokens included; otherwise the tokenizer adds its own.
    """

    text: str
    spans: Spans
    templated: bool


def render(record: Record, tokenizer: FastTokenizer, templates: Templates) -> Conversation:
    """The record as the model is to see it.

    Raises InputError for a record of another form, and for messages that no chat template fits.
    """
    template = chat_template(tokenizer)
    if "messages" in record.fields:
        messages = _messages(record)
        if template is None:
            raise InputError(
                f"{record.place}: messages need a chat template and the tokenizer has none; put chat_template.jinja "
                "beside tokenizer.json, or give records with instruction, input and output"
            )
    else:
        instruction, given, output = _instruction(record)
        if template is None:
            prompt = (ALPACA_INPUT if given else ALPACA).format(instruction=instruction, input=given)
            return Conversation(prompt + output, ((len(prompt), len(prompt) + len(output)),), templated=False)
        asked = f"{instruction}\n\n{given}" if given else instruction
        messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": output}]
    try:
        markers = [token.content for token in tokenizer.added_tokens_decoder.values()]
        text, spans = templates.render(messages, template, tokenizer.special_tokens_map, markers)
    except InputError as error:
        raise InputError(f"{record.place}: {error}") from None
    return Conversation(text, spans, templated=True)


def assistant_mask(offsets: Int[np.ndarray, "tokens 2"], spans: Spans) -> UInt8[np.ndarray, " tokens"]:
    """1 for every token that holds a character of a span, else 0.

    Args:
      offsets: first character and the one after the last of each token. Byte-level tokenizers leave leading spaces out,
        so that a token of nothing but spaces has no width; it ends where its spaces do.
      spans: character ranges [start, stop).
    """
    starts, stops = offsets[:, 0], offsets[:, 1]
    starts = np.where(stops > starts, starts, starts - 1)
    mask = np.zeros(len(offsets), np.uint8)
    for start, stop in spans:
        mask |= (starts < stop) & (stops > start)
    return mask


def chat_template(tokenizer: FastTokenizer) -> str | None:
    """The tokenizer's (default) chat template."""
    try:
        template = tokenizer.get_chat_template()
    except ValueError:  # it has none
        return None
    if not isinstance(template, str):
        raise InputError(f"the tokenizer's chat template is a {type(template).__name__}; repair tokenizer_config.json")
    return template


def check_chat(tokenizer: FastTokenizer) -> None:
    """Refuses to put a text as a user's message to a model whose tokenizer has no chat template."""
    if chat_template(tokenizer) is None:
        raise InputError("--chat: the model's tokenizer has no chat template; leave out --chat")


def _messages(record: Record) -> list[Message]:
    messages = record.fields["messages"]
    if not isinstance(messages, list) or not messages:
        raise InputError(f'{record.place}: "messages" is not a list with at least one message; remove the record')
    return [_message(message, f"{record.place}: message {number}") for number, message in enumerate(messages, 1)]


def _message(message: Any, place: str) -> Message:
    """A message with its content as text."""
    role, content = (message.get(key) for key in ("role", "content")) if isinstance(message, dict) else (None, None)
    if not isinstance(role, str) or content is None:
        raise InputError(f'{place} has no "role" and "content" strings; repair the record')
    if isinstance(content, list):
        for part in content:
            if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
                raise InputError(
                    f'{place}: a part of its "content" is no text; only {{"type": "text", "text": ...}} is'
                )
        content = "".join(part["text"] for part in content)
    # As apply_chat_template does it: templates handle a missing field, but write None out.
    given = {key: value for key, value in message.items() if value is not None}
    return given | {"content": _text(content, f'{place}: its "content"')}


def _instruction(record: Record) -> tuple[str, str, str]:
    """Instruction, input ("" if there is none) and output."""
    given = {key: value for key, value in record.fields.items() if value is not None}
    if not {"instruction", "output"} <= given.keys():
        raise InputError(
            f'{record.place}: neither "messages" nor "instruction" and "output" in the record, only '
            f"{field_names(record)}, or null in them; rename its fields or remove it"
        )
    instruction, asked, output = (
        _text(given.get(key, ""), f'{record.place}: "{key}"') for key in ("instruction", "input", "output")
    )
    return instruction, asked, output


def _text(value: Any, what: str) -> str:
    """A string, or the JSON text of a number, true or false."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return json.dumps(value)
    found = f"the number {value}" if isinstance(value, float) else f"a {type(value).__name__}"
    raise InputError(f"{what} is {found}; expected a string, a number, true or false")
