"""What a dry run says of the time: by this machine's products, for what LESA computes."""

from dataclasses import replace

import pytest

from lesa_jax.growth import expected
from lesa_jax.growth.report import print_report
from lesa_jax.planning.methods import PredictorSettings
from tests.support.growth import grow
from tests.support.tiny import tiny


def test_a_dry_run_says_how_long_lesa_takes_and_more_epochs_take_longer(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(expected, "product_rate", lambda size: 1e8)  # operations a second
    fast, slow = (
        grow(tiny("llama"), tmp_path / "out", dry_run=True, predictor=PredictorSettings(epochs=epochs))
        for epochs in (1, 100)
    )
    assert fast.expected_seconds is not None
    assert slow.expected_seconds is not None
    assert slow.expected_seconds > 20 * fast.expected_seconds > 0
    print_report(replace(fast, expected_seconds=59.0))
    assert "time      a minute or less for the new matrices" in capsys.readouterr().out
    print_report(slow)
    minutes, seconds = divmod(int(slow.expected_seconds), 60)
    hours, minutes = divmod(minutes, 60)
    assert f"time      about {hours}:{minutes:02}:{seconds:02} for the new matrices" in capsys.readouterr().out


@pytest.mark.parametrize("method", ["llama_pro", "solar", "average"])
def test_what_takes_the_disks_time_is_told_by_a_disk(method, tmp_path, capsys):
    report = grow(tiny("llama"), tmp_path / "out", method, dry_run=True)
    assert report.expected_seconds is None
    print_report(replace(report, nbytes=45_000_000_000))
    shown = capsys.readouterr().out
    assert "time  " not in shown
    assert f"45.00 GB into {tmp_path / 'out'}: 0:01:30 on a disk that takes 0.50 GB a second" in shown
