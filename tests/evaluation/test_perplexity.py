"""Perplexity against transformers/torch, the two protocols, and what a user sees."""

import json
import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import tokenizers
import torch
import transformers as hf

from lesa_jax import demo
from lesa_jax.base.errors import InputError
from lesa_jax.command import run_command
from lesa_jax.evaluation import perplexity as metrics
from lesa_jax.evaluation.perplexity import model_nll, perplexity_of
from lesa_jax.evaluation.protocol import token_rows
from lesa_jax.evaluation.run import evaluate, evaluate_text, show
from lesa_jax.evaluation.settings import EvaluateSettings
from lesa_jax.families.model import ModelConfig
from lesa_jax.models.load import load_model

WINDOW = 96
DEMO = EvaluateSettings(sequence_length=WINDOW, batch_size=4)


@cache
def text() -> str:
    """About a thousand tokens, blank and one-token lines among them."""
    return demo.evaluation_text()[:3000]


def torch_row_losses(folder: Path, rows: list[list[int]]) -> list[float]:
    """Mean loss of each row, from transformers in float32."""
    torch.set_num_threads(1)  # many small rows: threads only wait for each other
    model = hf.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return [float(model(torch.tensor([row]), labels=torch.tensor([row])).loss) for row in rows]


def torch_perplexity(folder: Path, protocol: str) -> float:
    """The definitions of `lesa_jax.evaluation.protocol`, written down a second time."""
    tokenizer = hf.AutoTokenizer.from_pretrained(folder)
    if protocol == "corpus":
        ids = tokenizer(text())["input_ids"]
        rows = [ids[i : i + WINDOW] for i in range(0, len(ids), WINDOW)]
    else:
        rows = [tokenizer(line)["input_ids"][:WINDOW] for line in text().split("\n") if line.strip()]
    rows = [row for row in rows if len(row) > 1]
    losses = torch_row_losses(folder, rows)
    if protocol == "line":
        return float(np.mean(np.exp(losses)))
    counts = [len(row) - 1 for row in rows]
    return math.exp(np.dot(losses, counts) / sum(counts))


@pytest.mark.parametrize("protocol", ["corpus", "line"])
@pytest.mark.parametrize("name", ["demo", "books16"])
def test_perplexity_equals_that_of_transformers(name: str, protocol: Any, request: pytest.FixtureRequest):
    folder = demo.MODEL_DIRECTORY if name == "demo" else request.getfixturevalue("books16")
    measured = evaluate_text(text(), replace(DEMO, model=str(folder), ppl_protocol=protocol))
    assert measured["perplexity"] == pytest.approx(torch_perplexity(folder, protocol), rel=1e-4)


@cache
def demo_rows(protocol: metrics.PplProtocol) -> list[np.ndarray]:
    tokenizer = hf.AutoTokenizer.from_pretrained(demo.MODEL_DIRECTORY)
    _, config = load_model(demo.MODEL_DIRECTORY)
    return token_rows(tokenizer, text(), protocol, config, WINDOW)


def test_corpus_rows_are_the_whole_text_in_order_and_the_short_last_one_counts():
    tokenizer = hf.AutoTokenizer.from_pretrained(demo.MODEL_DIRECTORY)
    rows = demo_rows("corpus")
    assert np.concatenate(rows).tolist() == tokenizer(text())["input_ids"]
    assert {len(row) for row in rows[:-1]} == {WINDOW}
    assert 1 < len(rows[-1]) < WINDOW


@pytest.mark.parametrize("protocol", ["corpus", "line"])
def test_batch_size_does_not_matter_and_progress_counts_rows(protocol: Any):
    params, config = load_model(demo.MODEL_DIRECTORY)
    rows = demo_rows(protocol)[:20]
    done: list[int] = []
    one = perplexity_of(model_nll(params, config), rows, protocol, 1)
    many = perplexity_of(model_nll(params, config), rows, protocol, 16, advance=done.append)
    assert one.perplexity == pytest.approx(many.perplexity, rel=1e-5)
    assert [window.tokens for window in one.windows] == [window.tokens for window in many.windows]
    assert sorted(window.tokens for window in one.windows) == sorted(len(row) - 1 for row in rows)
    assert [window.nll for window in one.windows] == pytest.approx([window.nll for window in many.windows], rel=1e-4)
    assert sum(tokens * loss for tokens, loss in one.windows) / one.tokens == pytest.approx(one.nll)
    alone = perplexity_of(model_nll(params, config), [max(rows, key=len)], protocol, 1)
    assert one.windows[0] == (alone.tokens, pytest.approx(alone.nll, rel=1e-4))
    assert perplexity_of(model_nll(params, config), rows[:2], protocol, 10**12).tokens == sum(map(len, rows[:2])) - 2
    assert one.tokens == many.tokens == sum(len(row) - 1 for row in rows)
    assert sum(done) == len(rows)


def test_a_model_that_knows_nothing_has_the_vocabulary_as_perplexity():
    params, config = load_model(demo.MODEL_DIRECTORY)
    blank = jax.tree.map(np.zeros_like, params)
    for protocol in ("corpus", "line"):
        measured = perplexity_of(model_nll(blank, config), demo_rows(protocol)[:4], protocol, 4)
        assert measured.perplexity == pytest.approx(config.vocab_size, rel=1e-5)


def test_a_second_model_of_the_same_shapes_compiles_nothing():
    params, config = load_model(demo.MODEL_DIRECTORY)
    rows = demo_rows("corpus")
    perplexity_of(model_nll(params, config), rows, "corpus", 4)
    program: Any = metrics._batch_nll
    compiled = program._cache_size()
    other = jax.tree.map(lambda leaf: leaf * 0.5, params)
    perplexity_of(model_nll(other, ModelConfig(**vars(config))), rows, "corpus", 4)
    assert program._cache_size() == compiled


def test_damaged_weights_are_reported_not_averaged():
    params, config = load_model(demo.MODEL_DIRECTORY)
    damaged = jax.tree.map(lambda leaf: leaf * np.nan, params)
    with pytest.raises(InputError, match="weights hold NaN or infinite .* another model's config.json"):
        perplexity_of(model_nll(damaged, config), demo_rows("corpus")[:1], "corpus", 1)


def test_command_prints_one_json_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "text.txt"
    file.write_text(text(), encoding="utf-8")
    argv = ["--text", str(file), "--sequence-length", str(WINDOW), "--batch-size", "4"]
    assert run_command(evaluate, EvaluateSettings, show, argv) == 0
    printed = json.loads(capsys.readouterr().out)
    assert set(printed) == {"model", "protocol", "perplexity", "nll", "tokens", "seconds"}
    assert printed["model"] == "demo"
    assert printed["perplexity"] == pytest.approx(math.exp(printed["nll"]))
    assert printed["tokens"] == sum(len(row) - 1 for row in demo_rows("corpus"))


def test_an_overflowing_perplexity_is_null(capsys: pytest.CaptureFixture[str]):
    show({"perplexity": math.inf})
    assert json.loads(capsys.readouterr().out) == {"perplexity": None}


def with_config(folder: Path, **changes: Any) -> Path:
    """The demo model with another config.json."""
    folder.mkdir()
    for file in demo.MODEL_DIRECTORY.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--model", "./nowhere"], "nowhere"),
        (["--text", "nowhere.txt"], "nowhere.txt"),
        (["--sequence-length", "100000"], "--sequence-length 100000"),
        (["--sequence-length", "1"], "--sequence-length 1"),
        (["--sequence-length", "-5"], "--sequence-length -5"),
        (["--batch-size", "0"], "--batch-size 0"),
        (["--batch-size", "-1"], "--batch-size -1"),
        (["--text", "."], "--text ."),
        (["--model", ""], "--model is empty"),
    ],
)
def test_a_bad_option_ends_in_one_line(options: list[str], named: str, capsys: pytest.CaptureFixture[str]):
    assert run_command(evaluate, EvaluateSettings, show, options) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert named in printed.err
    assert printed.err.count("\n") == 1


def test_a_bad_checkpoint_or_text_is_named(tmp_path: Path):
    for index, (changes, named) in enumerate(
        [
            ({"model_type": "bloom"}, "bloom"),
            ({"num_key_value_heads": 3}, "k_proj"),
            ({"num_hidden_layers": 12}, "input_layernorm|self_attn|mlp"),
            ({"attention_bias": True}, "bias"),
        ]
    ):
        folder = with_config(tmp_path / str(index), **changes)
        with pytest.raises(InputError, match=named):
            evaluate_text("a b c", EvaluateSettings(model=str(folder)))
    no_tokenizer = with_config(tmp_path / "no_tokenizer")
    (no_tokenizer / "tokenizer.json").unlink()
    with pytest.raises(InputError, match="tokenizer"):
        evaluate_text("a b c", EvaluateSettings(model=str(no_tokenizer)))
    for content, named in (
        (b" \n\n ", "holds no text"),
        (b"\xff\xfe", "UTF-8"),
        (b"a\0b c d", "NUL bytes"),
        (b"a", "fewer than two tokens"),
        ("\ufeffa".encode(), "fewer than two tokens"),
    ):
        (tmp_path / "text.txt").write_bytes(content)
        with pytest.raises(InputError, match=named):
            evaluate(EvaluateSettings(text=tmp_path / "text.txt"))
    with pytest.raises(InputError, match="fewer than two tokens"):
        evaluate_text("a", EvaluateSettings())


def test_a_tokenizer_of_another_model_is_refused():
    _, config = load_model(demo.MODEL_DIRECTORY)
    tokenizer = hf.AutoTokenizer.from_pretrained(demo.MODEL_DIRECTORY)
    with pytest.raises(InputError, match="vocab_size"):
        token_rows(tokenizer, text(), "corpus", replace(config, vocab_size=16))


def test_a_tokenizer_that_fails_on_the_text_is_said_in_one_line():
    _, config = load_model(demo.MODEL_DIRECTORY)
    backend = tokenizers.Tokenizer(tokenizers.models.WordPiece({"a": 0}, unk_token="[UNK]"))
    tokenizer = hf.PreTrainedTokenizerFast(tokenizer_object=backend)
    for protocol in ("corpus", "line"):
        with pytest.raises(InputError, match=r"cannot tokenise the text \(.*UNK.*\); repair or replace"):
            token_rows(tokenizer, "a b", protocol, config)


def test_a_byte_order_mark_and_foreign_line_ends_are_no_tokens(tmp_path: Path):
    plain, foreign = tmp_path / "plain.txt", tmp_path / "foreign.txt"
    plain.write_bytes(text()[:400].encode())
    foreign.write_bytes("\ufeff".encode() + text()[:400].replace("\n", "\r\n").encode())
    one, other = (evaluate(replace(DEMO, text=file)) for file in (plain, foreign))
    assert (one["tokens"], one["nll"]) == (other["tokens"], other["nll"])


def test_the_evaluation_text_is_held_out_and_of_fair_size():
    assert 150_000 < len(demo.evaluation_text()) < 400_000
    held_out = demo.evaluation_text()
    assert not any(module in held_out for module in demo.training_texts() if len(module) > 2000)
