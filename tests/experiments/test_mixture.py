"""The experiment on mixtures of experts, with settings of seconds."""

import csv
import sys
from pathlib import Path

import pytest

# experiments/ is no package: its scripts are run, and import one another by name.
sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))

import mixture


@pytest.mark.slow
def test_every_way_gets_a_row_and_a_second_run_does_nothing(tmp_path, monkeypatch):
    text = tmp_path / "text.txt"
    text.write_text("".join(f"The {i}th of all the words is word {i * i % 97}, and so on.\n" for i in range(3000)))
    settings = mixture.MixtureSettings(
        data=text,
        eval_text=text,
        name="test",
        layers=4,
        width=16,
        experts=4,
        expert_width=8,
        vocabulary=300,
        base_tokens="4K",
        tokens="2K",
        batch_size=4,
        sequence_length=64,
        eval_characters=2000,
        work=tmp_path / "work",
        results=tmp_path / "results",
    )
    mixture.main(settings)
    with settings.csv.open(newline="") as file:
        rows = {row["way"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["base", *mixture.WAYS]
    assert rows["(a) silenced copies"]["start"] == rows["base"]["start"]
    made = rows["(b) experts matched, the mean with their routers"]
    fitted = rows["(c) experts matched, their mean, routers fitted"]
    assert made["entropy_made"] == made["entropy_start"] == fitted["entropy_made"] != fitted["entropy_start"]
    table = settings.csv.with_suffix(".md").read_text()
    assert all(f"| {way} |" in table for way in rows)
    monkeypatch.setattr(mixture, "train", None)  # what is finished is not run again
    monkeypatch.setattr(mixture, "trained_base", lambda settings: tmp_path / "work" / "base" / "final")
    mixture.main(settings)
    assert settings.csv.with_suffix(".md").read_text() == table
