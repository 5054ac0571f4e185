"""What goes wrong while a model grows: nothing is lost, nothing false is published, and one line says why."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lesa_jax.base.errors import InputError
from lesa_jax.base.folders import MANIFEST, claim
from lesa_jax.growth import copying
from lesa_jax.growth.run import expand
from lesa_jax.growth.settings import ExpandSettings
from lesa_jax.planning.record import read_growth
from tests.support.growth import grow
from tests.support.settings import nest
from tests.support.tiny import save, tiny


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def settings(source: Path, output: Path, **options) -> ExpandSettings:
    return nest(ExpandSettings, model=str(source), output=output, **{"method": "duplicate", **options})


def test_an_output_belongs_to_one_process(tmp_path):
    with claim(tmp_path / "out"), pytest.raises(InputError, match="another process is writing it; wait for that one"):
        grow(tiny("llama"), tmp_path / "out", "duplicate")
    grow(tiny("llama"), tmp_path / "out", "duplicate")
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("mine", ["runs/metrics.jsonl", "notes.txt"])
def test_overwrite_removes_nothing_that_the_user_put_there(tmp_path, mine):
    grow(tiny("llama"), tmp_path / "out", "duplicate")
    (tmp_path / "out" / mine).parent.mkdir(exist_ok=True)
    (tmp_path / "out" / mine).write_text("mine")
    with pytest.raises(InputError, match=rf"holds {mine.split('/')[0]}.*, which lesa_jax did not write there"):
        grow(tiny("llama"), tmp_path / "out", "solar", overwrite=True)
    assert (tmp_path / "out" / mine).read_text() == "mine"
    assert read_growth(tmp_path / "out", 9).method == "duplicate"
    (tmp_path / "out" / mine).unlink()
    if "/" in mine:
        (tmp_path / "out" / mine).parent.rmdir()
    grow(tiny("llama"), tmp_path / "out", "solar", overwrite=True)
    assert read_growth(tmp_path / "out", 9).method == "solar"
    assert names(tmp_path) == ["out"]


def test_a_killed_expansion_is_cleared_away_by_the_next(tmp_path, capsys):
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom lesa_jax.growth import run\n"
        "run.write_copies = lambda checkpoint, outputs: os._exit(9)\n"
        "run.expand(run.ExpandSettings(sys.argv[1], Path(sys.argv[2]), method='duplicate'))"
    )
    assert subprocess.run([sys.executable, "-c", program, tiny("llama"), tmp_path / "out"]).returncode == 9
    assert names(tmp_path) == [".out.lock", ".out.partial"]
    grow(tiny("llama"), tmp_path / "out", "duplicate")
    assert names(tmp_path) == ["out"]
    assert "left by a process that died" in capsys.readouterr().err


def in_place(file: Path) -> None:
    with file.open("r+b") as stream:
        stream.seek(-4, os.SEEK_END)
        stream.write(b"\0\0\0\0")


@pytest.mark.parametrize("change", [in_place, lambda file: os.truncate(file, file.stat().st_size // 2)])
def test_a_source_that_changes_under_way_is_not_published(tmp_path, monkeypatch, change):
    """The digest in growth.json is of the bytes that were used, or there is no growth.json."""
    source = save(tmp_path / "source", "llama")
    whole = copying.write_copies

    def write_copies(checkpoint, outputs):
        whole(checkpoint, outputs)
        change(source / "model.safetensors")

    monkeypatch.setattr("lesa_jax.growth.run.write_copies", write_copies)
    with pytest.raises(InputError, match=r"model.safetensors: (changed while|cannot be read)"):
        grow(source, tmp_path / "out", "duplicate")
    assert names(tmp_path) == ["source"]


def test_a_source_that_is_cut_short_while_it_is_read_is_one_line(tmp_path, monkeypatch):
    source = save(tmp_path / "source", "llama")
    whole = copying.write_copies

    def write_copies(checkpoint, outputs):
        os.truncate(source / "model.safetensors", 5000)
        whole(checkpoint, outputs)

    monkeypatch.setattr("lesa_jax.growth.run.write_copies", write_copies)
    with pytest.raises(InputError, match="changed while it was in use"):
        grow(source, tmp_path / "out", "duplicate")


@pytest.mark.parametrize("method", ["duplicate", "average", pytest.param("lesa", marks=pytest.mark.slow)])
def test_a_scale_that_overflows_the_stored_dtype_publishes_nothing(tmp_path, method):
    source = save(tmp_path / "source", "llama", torch.float16)
    with pytest.raises(InputError, match=r"not finite in F16.*; (choose another --output-scale|lower|look)"):
        grow(source, tmp_path / "out", method, output_scale=1e9)
    assert names(tmp_path) == ["source"]


def test_one_model_that_overflows_stops_no_other(tmp_path):
    from lesa_jax.growth.run import grow as grow_all

    source = save(tmp_path / "source", "llama", torch.float16)
    wanted = [
        settings(source, tmp_path / "loud", output_scale=1e9),
        settings(source, tmp_path / "silent", output_scale=0.5),
    ]
    loud, silent = grow_all(wanted)
    assert isinstance(loud, InputError)
    assert silent.method == "duplicate"
    assert names(tmp_path) == ["silent", "source"]


def test_a_full_disk_leaves_nothing_and_is_told_as_one(tmp_path):
    """With a limit on the size of files, which gives the same kind of error as a full disk."""
    program = (
        "import resource, signal, sys\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from lesa_jax.expand import main\nresource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "sys.exit(main())"
    )
    options = ["--model", tiny("llama"), "--output", tmp_path / "out", "--method", "duplicate"]
    done = subprocess.run([sys.executable, "-c", program, *options], capture_output=True, text=True)
    assert done.returncode == 1
    assert "the disk is full; free some space" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert names(tmp_path) == []


def test_in_hundreds_of_shards(tmp_path):
    grow(tiny("llama"), tmp_path / "many", "duplicate", shard_size=1e-9)
    grow(tiny("llama"), tmp_path / "one", "duplicate")
    shards = sorted((tmp_path / "many").glob("*.safetensors"))
    assert len(shards) == len(load_file(tmp_path / "one" / "model.safetensors"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shard_size": float("inf")}, "--shard-size inf: must be a finite number"),
        ({"shard_size": float("nan")}, "--shard-size nan: must be a finite number"),
        ({"method": "lesa", "learning_rate": float("inf")}, "--learning-rate inf: must be a finite number"),
        ({"output_scale": float("-inf")}, "--output-scale -inf: must be a finite number"),
        ({"method": "lesa", "hidden_size": 10**9}, "--hidden-size 1000000000.* memory.*; choose smaller ones"),
        ({"method": "lesa", "epochs": 10**12}, "--epochs 1000000000000: the predictor takes about"),
        ({"method": "lesa", "batch_size": 10**12}, "--batch-size 1000000000000, .* the predictor takes about"),
    ],
)
def test_numbers_that_no_machine_can_work_with_are_refused_before_any_work(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        expand(settings(tiny("llama"), tmp_path / "out", **options))
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["x" * 255, "[bold]out[red]", "a b'c\"", "ü" * 100])
def test_any_name_that_a_disk_takes_is_a_name(tmp_path, name):
    grow(tiny("llama"), tmp_path / name, "duplicate")
    assert names(tmp_path) == [name]
    assert (tmp_path / name / MANIFEST).exists()


def test_what_stays_behind_is_said(tmp_path, capsys):
    source = save(tmp_path / "source", "llama")
    (source / "old.bin").write_bytes(b"weights")
    (source / "adapter_config.json").write_text("{}")
    (source / "checkpoints").mkdir()
    grow(source, tmp_path / "out", "duplicate")
    said = capsys.readouterr().err
    for name in ("old.bin", "adapter_config.json", "checkpoints"):
        assert f"does not go along: {name} (" in said
    assert "tokenizer" not in said
    assert not (tmp_path / "out" / "adapter_config.json").exists()


@pytest.mark.parametrize("name", ["x" * 256, "ü" * 128])
def test_a_name_that_no_disk_takes_is_refused(tmp_path, name):
    with pytest.raises(InputError, match="more than 255 bytes"):
        grow(tiny("llama"), tmp_path / name, "duplicate")
