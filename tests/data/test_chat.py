"""Conversations: what is learned is the assistant's words and end-of-turn token, whatever the template."""

from functools import cache

import numpy as np
import pytest
import tokenizers
from transformers import PreTrainedTokenizerFast

from lesa_jax.base.errors import InputError
from lesa_jax.data.chat import assistant_mask, render
from lesa_jax.data.sources import Record

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MARKED = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' }}{% if message.role == 'assistant' %}"
    "{%- generation -%}{{ message.content + '<|im_end|>' }}{%- endgeneration -%}"
    "{% else %}{{ message.content + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
)
# As Llama 2 and Mistral: no generation prompt, and the end-of-text token ends a turn.
INST = (
    "{{ bos_token }}{% for message in messages %}{% if message.role == 'user' %}{{ '[INST] ' + message.content + "
    "' [/INST]' }}{% else %}{{ message.content + eos_token }}{% endif %}{% endfor %}"
)
# No special tokens at all.
PLAIN = (
    "{% for message in messages %}{{ message.role + ':' + message.content + '\n\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
)
UNSTABLE = "{% for message in messages %}{{ message.content }}{% if loop.last %}!{% endif %}{% endfor %}"
ENDING = "{% for m in messages %}{{ m.content }}{% if loop.last and m.role == 'assistant' %}!{% endif %}{% endfor %}"
REFUSING = "{{ raise_exception('roles must alternate') }}"

TALK = [
    {"role": "user", "content": "Hi, who are you?"},
    {"role": "assistant", "content": " a bot — 机器人  "},
    {"role": "user", "content": "Good"},
    {"role": "assistant", "content": "bye \n"},
]


def small_tokenizer(template: str | None = None, eos: str | None = "<eos>", bos: str | None = None, **options):
    """A byte-level BPE tokenizer of some 400 tokens; with `bos` it puts that token in front of a text by itself."""
    tokenizer = tokenizers.Tokenizer.from_str(_trained())
    if bos:
        tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    names = {"eos_token": eos, "bos_token": bos} | options
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, chat_template=template, **{k: v for k, v in names.items() if v}
    )


@cache
def _trained() -> str:
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<eos>", "<bos>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["the user and the assistant say good words to the others"] * 9, trainer)
    # trim_offsets, as most published byte-level tokenizers have it, is the hard case.
    tokenizer.post_processor = tokenizers.processors.ByteLevel(trim_offsets=True)
    return tokenizer.to_str()


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
