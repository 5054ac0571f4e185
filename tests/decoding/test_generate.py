"""`lesa generate`, from a checkpoint's folder to the text."""

import json
import shutil
from typing import Any

import pytest
import torch
import transformers as hf

from lesa_jax import demo
from lesa_jax.base.errors import InputError
from lesa_jax.decoding.ends import end_tokens
from lesa_jax.generate import generate, main
from tests.support.tiny import LLAMA_LIKE, save
from tests.support.tokenizers import CHATML, small_tokenizer


@pytest.fixture
def folder(tmp_path):
    """A Llama with a tokenizer of its own, whose template is ChatML."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = LLAMA_LIKE | {"vocab_size": 512, "initializer_range": 0.3}
    hf.LlamaForCausalLM(hf.LlamaConfig(**sizes)).save_pretrained(tmp_path)
    small_tokenizer(CHATML, bos="<bos>").save_pretrained(tmp_path)
    return tmp_path


def theirs(folder, **options) -> str:
    model: Any = hf.AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = hf.AutoTokenizer.from_pretrained(folder)
    read = tokenizer("Hi you", return_tensors="pt")
    written = model.generate(**read, do_sample=False, pad_token_id=0, **options)
    return tokenizer.decode(written[0, read["input_ids"].shape[1] :], skip_special_tokens=True)


def test_it_writes_what_transformers_writes_and_shows_it_behind_the_prompt(folder, monkeypatch, capsys):
    expected = theirs(folder, max_new_tokens=40)
    result = generate(model=str(folder), prompt="Hi you", max_tokens=40)
    assert (result.prompt, result.text) == ("Hi you", expected)
    monkeypatch.setattr("sys.argv", ["generate", "--model", str(folder), "--prompt", "Hi you", "--max-tokens", "40"])
    assert main() == 0
    assert capsys.readouterr().out == f"Hi you{expected}\n"


def test_a_chat_goes_by_the_template(folder):
    result = generate(model=str(folder), prompt="Hi", chat=True, max_tokens=2)
    assert result.prompt == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


def test_drawing_depends_on_the_seed_alone(folder):
    def drawn(seed: int) -> str:
        return generate(model=str(folder), prompt="Hi you", temperature=1.0, top_p=0.95, seed=seed).text

    assert drawn(0) == drawn(0)
    assert drawn(0) != drawn(1)


def test_what_ends_a_text_is_found_where_transformers_looks(folder):
    tokenizer = hf.AutoTokenizer.from_pretrained(folder)
    assert end_tokens(folder, tokenizer) == {2}  # config.json's and generation_config.json's
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [5, 7]}))
    assert end_tokens(folder, tokenizer) == {5, 7}
    (folder / "generation_config.json").write_text("{}")
    assert end_tokens(folder, tokenizer) == {2}
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"eos_token_id": None}))
    assert end_tokens(folder, tokenizer) == {tokenizer.eos_token_id}


def test_a_text_ends_where_the_checkpoint_says(folder):
    whole = generate(model=str(folder), prompt="Hi you", max_tokens=12).tokens
    end = whole[6]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": end}))
    assert generate(model=str(folder), prompt="Hi you", max_tokens=12).tokens == whole[: whole.index(end)]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"max_tokens": 0}, "--max-tokens 0: expected at least 1"),
        ({"prompt": "", "model": str(demo.MODEL_DIRECTORY)}, "--prompt: has no tokens"),
        ({"chat": True, "model": str(demo.MODEL_DIRECTORY)}, "--chat: the model's tokenizer has no chat template"),
        ({"temperature": -0.5}, "--temperature -0.5"),
        ({"seed": -1}, "--seed -1"),
        ({"model": "./nowhere"}, "nowhere"),
    ],
)
def test_bad_options_end_in_one_line(options, line):
    with pytest.raises(InputError, match=line):
        generate(**options)


def test_an_encoder_decoder_is_refused(tmp_path):
    folder = save(tmp_path, "t5")
    shutil.copy(demo.MODEL_DIRECTORY / "tokenizer.json", folder)
    with pytest.raises(InputError, match="a t5 model writes by an encoder and a decoder"):
        generate(model=str(folder))
