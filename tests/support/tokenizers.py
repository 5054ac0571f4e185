"""A small tokenizer, chat templates of the kinds in use, and a talk to render."""

from functools import cache

import tokenizers
from transformers import PreTrainedTokenizerFast

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


def tiny_tokenizer(sentinels: int = 0):
    """A tokenizer of single letters for models with a vocabulary of 64, with T5's sentinels at its top."""
    letters = ["<eos>", "<unk>", *"abcdefghijklmnopqrstuvwxyz0123456789 .,"]
    vocabulary = {letter: number for number, letter in enumerate(letters)}
    vocabulary |= {f"<extra_id_{number}>": 63 - number for number in range(sentinels)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex("."), "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", unk_token="<unk>")
