"""`lesa generate`, from a checkpoint's folder to the text."""

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
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


@pytest.mark.parametrize("family", ["t5", pytest.param("t5_gated", marks=pytest.mark.slow), "bart"])
def test_an_encoder_decoder_writes_about_the_text_what_transformers_writes(family, tmp_path, monkeypatch, capsys):
    """Longer than a program's chunk of tokens."""
    folder = save(tmp_path, family)
    model: Any = hf.AutoModelForSeq2SeqLM.from_pretrained(folder)
    torch.manual_seed(0)
    with torch.no_grad():  # so that something is said
        for weights in model.parameters():
            if weights.dim() > 1:
                weights.copy_(torch.randn(weights.shape) * 0.8)
    model.save_pretrained(folder)
    letters(folder)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": []}))
    result = generate(model=str(folder), prompt="hi you", max_tokens=25)
    read = hf.AutoTokenizer.from_pretrained(folder)("hi you", return_tensors="pt")["input_ids"]
    target = torch.tensor([[model.config.decoder_start_token_id, *result.tokens[:-1]]])
    expected = model.eval()(input_ids=read, decoder_input_ids=target, use_cache=False).logits.argmax(dim=-1)[0]
    assert list(result.tokens) == expected.tolist()
    if family == "t5":  # BART's, whose stream is normalised, says one thing over and over
        assert len(set(result.tokens)) > 3
    end = result.tokens[20]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [end]}))
    assert (
        generate(model=str(folder), prompt="hi you", max_tokens=25).tokens == result.tokens[: result.tokens.index(end)]
    )
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": []}))
    monkeypatch.setattr("sys.argv", ["generate", "--model", str(folder), "--prompt", "hi you", "--max-tokens", "25"])
    assert main() == 0
    assert capsys.readouterr().out == f"{result.text}\n"


def test_a_text_beyond_barts_positions_is_refused(tmp_path):
    folder = save(tmp_path, "bart")
    letters(folder)
    positions = json.loads((folder / "config.json").read_text())["max_position_embeddings"]
    with pytest.raises(InputError, match=f"6 tokens and {positions} to be written, but either part has {positions}"):
        generate(model=str(folder), prompt="hi you", max_tokens=positions)


def letters(folder: Path) -> None:
    """A tokenizer of letters for a model of 64 tokens."""
    words = {letter: number for number, letter in enumerate(" abcdefghijklmnopqrstuvwxyz.,?!", start=3)}
    model = tokenizers.models.WordLevel({"<pad>": 0, "<eos>": 1, "?": 2} | words, unk_token="?")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex("."), "isolated")
    tokenizer.decoder = tokenizers.decoders.Fuse()
    hf.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>").save_pretrained(folder)
