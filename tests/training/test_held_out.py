"""What a run says at its end: losses before and after, and of the model that it began with."""

import json
import math

import pytest

from lesa_jax.evaluation.run import evaluate
from lesa_jax.training.report import print_train_report
from lesa_jax.training.run import train
from tests.support.settings import train_settings


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
