"""What is measured of a run whose user names no held-out text, and of the model that it began with."""

import json
import math
import re
from dataclasses import replace

import pytest

from lesa_jax.evaluation.perplexity import model_nll, perplexity_of
from lesa_jax.models.load import load_model
from lesa_jax.training.job import make_train_job
from lesa_jax.training.report import print_train_report
from lesa_jax.training.run import read_data, train, without_held_out
from tests.support.settings import train_settings
from tests.support.training import grown_model, write_text


def test_without_a_text_some_of_the_data_is_held_out_and_the_report_names_base_start_and_end(tmp_path, capsys):
    place = tmp_path / "place"
    place.mkdir()
    grown_model(place)
    write_text(place / "data.jsonl", lines=1200)
    settings = train_settings(place, "run", eval_text=None)
    result = train(settings)
    rows = [json.loads(line) for line in (place / "run" / "metrics.jsonl").read_text().splitlines()]
    measured = [row["eval_loss"] for row in rows if row["eval_loss"] is not None]
    assert result.losses == {"eval_loss": (measured[0], measured[-1])}
    text = capsys.readouterr().err
    [kept] = re.findall(r"held out: the last (\d+) of ([\d,]+) rows of the data, without an --eval-text", text)
    assert int(kept[0]) == int(kept[1].replace(",", "")) // 100 > 0
    # The base's loss is that of the original on the same rows.
    job = make_train_job(replace(settings, model=str(place / "base"), train="all", output=place / "other"))
    _, held = without_held_out(job, read_data(job))
    base = perplexity_of(model_nll(*load_model(place / "base")), held, "corpus", 8)
    assert result.base_losses["eval_loss"] == pytest.approx(base.nll, rel=1e-5)
    assert abs(measured[0] - base.nll) > 1e-4  # copies are heard
    print_train_report(result)
    shown = capsys.readouterr().out
    assert f"perplexity {math.exp(measured[0]):.2f} -> {math.exp(measured[-1]):.2f}, {base.perplexity:.2f}" in shown
    assert f"finished: {place / 'run' / 'final'}" in shown
    # Going on and asking again, the numbers are kept.
    assert train(settings).base_losses == result.base_losses
