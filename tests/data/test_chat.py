"""Conversations: what is learned is the assistant's words and end-of-turn token, whatever the template."""

import numpy as np
import pytest

from lesa_jax.base.errors import InputError
from lesa_jax.data.chat import assistant_mask, render
from lesa_jax.data.sources import Record
from tests.support.tokenizers import CHATML, ENDING, INST, MARKED, PLAIN, REFUSING, TALK, UNSTABLE, small_tokenizer


def learned_text(fields, tokenizer) -> str:
    """The tokens of a record that are learned, as text."""
    conversation = render(Record(fields, "f:1"), tokenizer)
    encoded = tokenizer(conversation.text, add_special_tokens=False, return_offsets_mapping=True)
    mask = assistant_mask(np.array(encoded["offset_mapping"]), conversation.spans)
    return tokenizer.decode(np.array(encoded["input_ids"])[mask == 1])


@pytest.mark.parametrize(
    ("template", "end", "bos"),
    [(CHATML, "<|im_end|>", None), (MARKED, "<|im_end|>", None), (INST, "<eos>", "<bos>"), (PLAIN, "\n\n", None)],
)
def test_all_assistant_turns_with_their_ends_are_learned_and_nothing_else(template, end, bos):
    tokenizer = small_tokenizer(template, bos=bos)
    expected = "".join(m["content"] + end for m in TALK if m["role"] == "assistant")
    assert learned_text({"messages": TALK}, tokenizer) == expected
    rendered = render(Record({"messages": TALK}, "f:1"), tokenizer)
    assert rendered.templated
    assert rendered.text == tokenizer.apply_chat_template(TALK, tokenize=False)


@pytest.mark.parametrize("template", [CHATML, MARKED])
def test_an_assistant_may_speak_first_and_a_system_prompt_is_not_learned(template):
    talk = [{"role": "assistant", "content": "hello"}, {"role": "system", "content": "be good", "name": None}]
    assert learned_text({"messages": talk}, small_tokenizer(template)) == "hello<|im_end|>"
    assert learned_text({"messages": talk[1:]}, small_tokenizer(template)) == ""


def test_instructions_become_a_conversation_where_there_is_a_template():
    fields = {"instruction": "Add.", "input": "1 2", "output": "3"}
    conversation = render(Record(fields, "f:1"), small_tokenizer(CHATML))
    assert "<|im_start|>user\nAdd.\n\n1 2<|im_end|>" in conversation.text
    assert learned_text(fields, small_tokenizer(CHATML)) == "3<|im_end|>"


@pytest.mark.parametrize("given", ["1 2", "", None])
def test_instructions_become_an_alpaca_prompt_where_there_is_none(given):
    fields = {"instruction": "Add {x}.", "input": given, "output": "  the 3  "}
    conversation = render(Record(fields, "f:1"), small_tokenizer())
    assert not conversation.templated
    assert conversation.text.endswith("### Response:\n  the 3  ")
    assert ("### Input:\n1 2\n" in conversation.text) == bool(given)
    assert "### Instruction:\nAdd {x}.\n" in conversation.text
    assert learned_text(fields, small_tokenizer()) == "  the 3  "


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
        ({"instruction": "a", "output": 3}, CHATML, 'f:3: "output" is a int'),
    ],
)
def test_what_cannot_be_rendered_is_named(fields, template, message):
    with pytest.raises(InputError, match=message) as raised:
        render(Record(fields, "f:3"), small_tokenizer(template))
    assert "\n" not in str(raised.value)
