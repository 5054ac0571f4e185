"""Conversations as text in which the assistant's words are known.

Records are {"messages": [{"role", "content"}, ...]} or {"instruction", "input" (may be missing), "output"}. What is
learned of a conversation is every assistant turn, its end-of-turn token included.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from lesa_jax.base.errors import InputError
from lesa_jax.data.sources import Record, field_names

# A transformers PreTrainedTokenizerFast; its class takes seconds to import.
FastTokenizer = Any
Message = dict[str, Any]
Spans = tuple[tuple[int, int], ...]

GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")

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


def render(record: Record, tokenizer: FastTokenizer) -> Conversation:
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
        text, spans = _rendered(messages, template, tokenizer)
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
        return tokenizer.get_chat_template()
    except ValueError:  # it has none
        return None


def _messages(record: Record) -> list[Message]:
    messages = record.fields["messages"]
    if not isinstance(messages, list) or not messages:
        raise InputError(f'{record.place}: "messages" is not a list with at least one message; remove the record')
    for number, message in enumerate(messages, 1):
        parts = [message.get(key) for key in ("role", "content")] if isinstance(message, dict) else [None]
        if not all(isinstance(part, str) for part in parts):
            raise InputError(f'{record.place}: message {number} has no "role" and "content" strings; repair the record')
    # As apply_chat_template does it: templates handle a missing field, but write None out.
    return [{key: value for key, value in message.items() if value is not None} for message in messages]


def _instruction(record: Record) -> tuple[str, str, str]:
    """Instruction, input ("" if there is none) and output."""
    if not {"instruction", "output"} <= record.fields.keys():
        raise InputError(
            f'{record.place}: neither "messages" nor "instruction" and "output" in the record, only '
            f"{field_names(record)}; rename its fields"
        )
    instruction, given, output = (record.fields.get(key) or "" for key in ("instruction", "input", "output"))
    for key, value in (("instruction", instruction), ("input", given), ("output", output)):
        if not isinstance(value, str):
            raise InputError(f'{record.place}: "{key}" is a {type(value).__name__}; expected a string')
    return instruction, given, output


def _rendered(messages: list[Message], template: str, tokenizer: FastTokenizer) -> tuple[str, Spans]:
    """The text of a conversation and the assistant's spans in it."""
    from jinja2 import TemplateError  # both are slow to import, and only chats need them
    from transformers.utils.chat_template_utils import render_jinja_template

    def draw(turns: list[Message], **options: bool) -> tuple[str, list[Any]]:
        # apply_chat_template's own renderer. That one refuses the empty conversation before an assistant's first word;
        # and its token mask loses a turn that begins with a space, and runs on after one that ends with a space.
        rendered: Any = render_jinja_template(
            [turns], chat_template=template, **options, **tokenizer.special_tokens_map
        )
        texts, spans = rendered
        return texts[0], spans[0] if spans else []

    try:
        if GENERATION.search(template):
            text, spans = draw(messages, return_assistant_tokens_mask=True)
            return text, tuple((int(start), int(stop)) for start, stop in spans)
        markers = [token.content for token in tokenizer.added_tokens_decoder.values()]
        return _turns(messages, lambda turns, asks: draw(turns, add_generation_prompt=asks)[0], markers)
    except (TemplateError, TypeError, LookupError, AttributeError) as error:
        reason = str(error).split("\n")[0]
        raise InputError(f"the chat template cannot render it ({reason}); remove or repair the record") from None


def _turns(
    messages: Sequence[Message], draw: Callable[[list[Message], bool], str], markers: Iterable[str]
) -> tuple[str, Spans]:
    """The assistant's turns in a text whose template does not mark them.

    A turn is what the conversation up to it adds to the prompt that asks for it. What it ends with goes up to the
    end-of-turn token; white space after that one is the template's.
    """
    text = draw(list(messages), False)
    spans = []
    for number, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before, after = draw(list(messages[:number]), True), draw(list(messages[: number + 1]), False)
        if not (text.startswith(after) and after.startswith(before)):
            raise InputError(
                f"the chat template writes message {number + 1} differently when others follow, so the assistant's "
                "words cannot be told; mark them in the template with {% generation %} and {% endgeneration %}"
            )
        bare = after.rstrip()
        ended = len(bare) > len(before) and bare.endswith(tuple(markers))
        spans.append((len(before), len(bare) if ended else len(after)))
    return text, tuple(spans)
