"""Conversations: what is learned is the assistant's words and end-of-turn token, whatever the template."""

from contextlib import closing

import numpy as np
import pytest

from lesa_jax.base.errors import InputError
from lesa_jax.data.chat import assistant_mask, render
from lesa_jax.data.sources import Record
from lesa_jax.data.templates import Templates
from tests.support.tokenizers import CHATML, ENDING, INST, MARKED, PLAIN, REFUSING, TALK, UNSTABLE, small_tokenizer


@pytest.fixture(scope="module")
def templates():
    with closing(Templates()) as process:
        yield process


def learned_text(fields, tokenizer, templates) -> str:
    """The tokens of a record that are learned, as text."""
    conversation = render(Record(fields, "f:1"), tokenizer, templates)
    encoded = tokenizer(conversation.text, add_special_tokens=False, return_offsets_mapping=True)
    mask = assistant_mask(np.array(encoded["offset_mapping"]), conversation.spans)
    return tokenizer.decode(np.array(encoded["input_ids"])[mask == 1])


@pytest.mark.parametrize(
    ("template", "end", "bos"),
    [(CHATML, "<|im_end|>", None), (MARKED, "<|im_end|>", None), (INST, "<eos>", "<bos>"), (PLAIN, "\n\n", None)],
)
def test_all_assistant_turns_with_their_ends_are_learned_and_nothing_else(templates, template, end, bos):
    tokenizer = small_tokenizer(template, bos=bos)
    expected = "".join(m["content"] + end for m in TALK if m["role"] == "assistant")
    assert learned_text({"messages": TALK}, tokenizer, templates) == expected
    rendered = render(Record({"messages": TALK}, "f:1"), tokenizer, templates)
    assert rendered.templated
    assert rendered.text == tokenizer.apply_chat_template(TALK, tokenize=False)


@pytest.mark.parametrize("template", [CHATML, MARKED])
def test_an_assistant_may_speak_first_and_a_system_prompt_is_not_learned(templates, template):
    talk = [{"role": "assistant", "content": "hello"}, {"role": "system", "content": "be good", "name": None}]
    assert learned_text({"messages": talk}, small_tokenizer(template), templates) == "hello<|im_end|>"
    assert learned_text({"messages": talk[1:]}, small_tokenizer(template), templates) == ""


def test_instructions_become_a_conversation_where_there_is_a_template(templates):
    fields = {"instruction": "Add.", "input": "1 2", "output": "3"}
    conversation = render(Record(fields, "f:1"), small_tokenizer(CHATML), templates)
    assert "<|im_start|>user\nAdd.\n\n1 2<|im_end|>" in conversation.text
    assert learned_text(fields, small_tokenizer(CHATML), templates) == "3<|im_end|>"


@pytest.mark.parametrize("given", ["1 2", "", None])
def test_instructions_become_an_alpaca_prompt_where_there_is_none(templates, given):
    fields = {"instruction": "Add {x}.", "input": given, "output": "  the 3  "}
    conversation = render(Record(fields, "f:1"), small_tokenizer(), templates)
    assert not conversation.templated
    assert conversation.text.endswith("### Response:\n  the 3  ")
    assert ("### Input:\n1 2\n" in conversation.text) == bool(given)
    assert "### Instruction:\nAdd {x}.\n" in conversation.text
    assert learned_text(fields, small_tokenizer(), templates) == "  the 3  "


@pytest.mark.parametrize(
    ("fields", "template", "message"),
    [
        ({"messages": TALK}, None, "f:3: messages need a chat template and the tokenizer has none"),
        ({"messages": TALK}, UNSTABLE, "f:3: the chat template writes message 2 differently"),
        ({"messages": TALK}, ENDING, "f:3: the chat template writes message 2 differently"),
        ({"messages": TALK}, REFUSING, r"f:3: the chat template cannot render it \(roles must alternate\)"),
        ({"messages": TALK}, "{{ messages[0].content + 1 }}", "f:3: the chat template cannot render it"),
        ({"messages": []}, CHATML, "f:3: .*at least one message"),
        ({"messages": [TALK[0], {"role": "user"}]}, CHATML, "f:3: message 2 has no"),
        ({"messages": ["hi"]}, CHATML, "f:3: message 1 has no"),
        ({"text": "a"}, CHATML, 'f:3: neither "messages" nor "instruction" and "output".*only \'text\''),
        ({"instruction": "a", "output": [3]}, CHATML, 'f:3: "output" is a list; expected a string, a number, true'),
        ({"instruction": {}, "output": "a"}, None, 'f:3: "instruction" is a dict'),
        ({"instruction": "a", "input": [], "output": "a"}, None, 'f:3: "input" is a list'),
        ({"instruction": "a", "output": float("nan")}, None, 'f:3: "output" is the number nan'),
        ({"instruction": "a", "output": None}, CHATML, "f:3: neither.*or null in them"),
        ({"messages": [{"role": "user", "content": None}]}, CHATML, "f:3: message 1 has no"),
        ({"messages": [{"role": "user", "content": {}}]}, CHATML, 'f:3: message 1: its "content" is a dict'),
        *(
            ({"messages": [{"role": "user", "content": [part]}]}, CHATML, 'f:3: message 1: a part of its "content"')
            for part in ({"type": "image"}, {"type": "text"}, {"type": "text", "text": 3}, "text", None)
        ),
    ],
)
def test_what_cannot_be_rendered_is_named(templates, fields, template, message):
    with pytest.raises(InputError, match=message) as raised:
        render(Record(fields, "f:3"), small_tokenizer(template), templates)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (False, "false"), (True, "true"), (1.5, "1.5"), (-3, "-3"), (10**20, "1" + "0" * 20)]
)
def test_numbers_true_and_false_are_learned_as_their_json_text(templates, value, text):
    assert learned_text({"instruction": "Is it?", "output": value}, small_tokenizer(), templates) == text
    assert (
        learned_text({"instruction": value, "output": value}, small_tokenizer(CHATML), templates) == f"{text}<|im_end|>"
    )
    talk = [TALK[0], {"role": "assistant", "content": value}]
    assert learned_text({"messages": talk}, small_tokenizer(CHATML), templates) == f"{text}<|im_end|>"
    given = render(Record({"instruction": "a", "input": value, "output": "b"}, "f:1"), small_tokenizer(), templates)
    assert f"### Input:\n{text}\n" in given.text


def test_parts_of_text_are_one_text(templates):
    parts = [{"type": "text", "text": "the good"}, {"type": "text", "text": " words"}]
    talk = [{"role": "user", "content": parts}, {"role": "assistant", "content": parts}]
    plain = [{"role": message["role"], "content": "the good words"} for message in talk]
    records = [Record({"messages": messages}, "f:1") for messages in (talk, plain)]
    one, other = (render(record, small_tokenizer(CHATML), templates) for record in records)
    assert one == other


def test_a_template_that_is_no_text_is_named(templates):
    tokenizer = small_tokenizer()
    tokenizer.chat_template = 3
    with pytest.raises(InputError, match="chat template is a int"):
        render(Record({"messages": TALK}, "f:1"), tokenizer, templates)
