"""What a run says at its end: losses before and after, and of the model that it began with; on a text, or on a part of
the data."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.tokenizer import load_tokenizer
from lesa_jax.data import open_data
from lesa_jax.evaluation.run import evaluate
from lesa_jax.training.report import print_train_report
from lesa_jax.training.run import train
from tests.support.settings import train_settings
from tests.support.tiny import torch_logits
from tests.support.training import rows


def test_the_report_names_base_start_and_end_and_where_the_model_is(place, capsys):
    settings = train_settings(place, "told")
    result = train(settings)
    rows = [json.loads(line) for line in (place / "told" / "metrics.jsonl").read_text().splitlines()]
    measured = [row["eval_loss"] for row in rows if row["eval_loss"] is not None]
    assert result.losses == {"eval_loss": (measured[0], measured[-1])}
    base = evaluate(model=str(place / "base"), text=place / "eval.txt", sequence_length=32)
    assert result.base_losses["eval_loss"] == pytest.approx(base["nll"], rel=1e-5)
    assert abs(measured[0] - base["nll"]) > 1e-4  # copies are heard
    print_train_report(result)
    shown = capsys.readouterr().out
    assert f"perplexity {math.exp(measured[0]):.2f} -> {math.exp(measured[-1]):.2f}, {base['perplexity']:.2f}" in shown
    assert f"finished: {place / 'told' / 'final'}" in shown
    # Going on and asking again, the numbers are kept.
    assert train(settings).base_losses == result.base_losses


def summed_by_torch(model: Path, row: Mapping[str, np.ndarray]) -> float:
    """Loss of a row's learned tokens, document by document."""
    total = 0.0
    for document in range(1, row["segment_ids"].max() + 1):
        inside = row["segment_ids"] == document
        logits = torch_logits(model, [row["tokens"][inside].tolist()])[0]
        losses = torch.nn.functional.cross_entropy(
            logits, torch.tensor(row["targets"][inside]).long(), reduction="none"
        )
        total += float(losses @ torch.tensor(row["weights"][inside]))
    return total


def test_without_a_text_a_part_of_the_data_is_held_out_and_measured(place, capsys):
    result = train(train_settings(place, "part", eval_text=None, hold_out=5))
    assert "held out: 5 of" in capsys.readouterr().err
    tokenizer = load_tokenizer(place / "grown")
    data = str(place / "data.jsonl")
    whole = open_data(data, "pretrain", tokenizer, place / "grown", 4096, 32, place / "part" / "tokens")
    _, held = whole.hold_out(5)  # fewer than a batch
    assert any(row["segment_ids"].max() > 1 for row in held)
    tokens = sum(row["weights"].sum() for row in held)
    for model, loss in (
        (place / "grown", result.losses["eval_loss"][0]),
        (place / "part" / "final", result.losses["eval_loss"][1]),
        (place / "base", result.base_losses["eval_loss"]),
    ):
        expected = sum(summed_by_torch(model, row) for row in held) / tokens
        assert loss == pytest.approx(expected, rel=1e-5), model
    assert [row["step"] for row in rows(place / "part") if row["eval_loss"] is not None] == [0, 3, 6]
    windows = json.loads((place / "part" / "windows.json").read_text())["eval_loss"]
    assert [count for count, _ in windows] == [row["weights"].sum() for row in held]


def test_what_is_held_out_decides_what_is_trained_on(place, capsys):
    options = {"eval_text": None, "steps": 2, "export": "none"}
    train(train_settings(place, "none-held", hold_out=0, **options))
    assert "held out" not in capsys.readouterr().err
    assert all(row["eval_loss"] is None for row in rows(place / "none-held"))
    with pytest.raises(InputError, match="hold_out=0, now it is 7"):
        train(train_settings(place, "none-held", hold_out=7, **options))


def test_with_a_text_all_of_the_data_is_trained_on(place, capsys):
    train(train_settings(place, "with-text", steps=1, export="none"))
    assert "held out" not in capsys.readouterr().err
