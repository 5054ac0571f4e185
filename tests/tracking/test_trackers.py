"""Where the numbers of a run go besides metrics.jsonl: the choice, and what wandb keeps of them in its offline mode."""

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from lesa_jax.base.errors import InputError
from lesa_jax.tracking.log import CURVE, METRICS, TENSORBOARD, RunLog
from lesa_jax.tracking.trackers import parse_trackers
from lesa_jax.tracking.weights_and_biases import RECORD, run_id

BLOCK = 32768  # of LevelDB's log, the format that wandb keeps a run in
LOG = """
import sys
from pathlib import Path
from lesa_jax.tracking.log import RunLog
from lesa_jax.tracking.trackers import parse_trackers
folder, last, end, *kill = sys.argv[1:]
with RunLog(Path(folder), int(last), parse_trackers("wandb"), {"learning_rate": 0.5, "model": "m"}) as log:
    first = log.last_step + 1
    for step in range(first, int(end)):
        if kill and step == first + 1:
            import wandb
            wandb.teardown()
        log.write(step, {"loss": 1.0 / (1 + step), "tokens": 8 * step})
    if kill == ["raise"]:
        raise SystemExit(3)
"""


def offline(folder: Path, last: int, end: int, *more: str, mode: str = "offline") -> subprocess.CompletedProcess:
    """Steps of a run logged to wandb by a process of its own, for wandb leaves threads and warnings behind."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    home = folder.parent / "home"
    home.mkdir(exist_ok=True)
    environment |= {"WANDB_MODE": mode, "HOME": str(home), "XDG_CONFIG_HOME": str(home)}
    return subprocess.run(
        [sys.executable, "-c", LOG, str(folder), str(last), str(end), *more],
        env=environment, capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def records(file: Path):
    """The records of a .wandb file: after seven bytes of header, pieces of records in blocks of 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, whole = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if BLOCK - at % BLOCK < 7:  # no room for a piece's header
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        whole, at = whole + data[at + 7 : at + 7 + length], at + 7 + length
        if kind in (1, 4):  # whole, or the last piece
            record = Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


def logged(folder: Path):
    """What all files of a run hold: its ids, its configuration, its numbers by step, its exit codes."""
    ids, config, rows, codes = set(), {}, [], []
    for file in sorted(folder.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime_ns):
        for record in records(file):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                ids.add(record.run.run_id)
                config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
            if kind == "history":
                items = {
                    ".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item
                }
                rows.append((items["_step"], {key: items[key] for key in ("loss", "tokens")}))
            if kind == "exit":
                codes.append(record.exit.exit_code)
    return ids, config, rows, codes


@pytest.mark.parametrize(
    ("text", "expected"),
    [("tensorboard", ("tensorboard",)), ("wandb, tensorboard,wandb", ("wandb", "tensorboard")), ("jsonl", ("jsonl",))],
)
def test_the_choice(text, expected):
    pytest.importorskip("wandb", reason="wandb is not installed")
    assert parse_trackers(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("wand", "--tracker wand: is none of tensorboard, wandb, jsonl: did you mean wandb?"),
        ("tensorboard,mlflow", "--tracker mlflow: is none of tensorboard, wandb, jsonl$"),
        (" , ", "--tracker: names none; choose of tensorboard, wandb, jsonl"),
    ],
)
def test_what_there_is_not(text, message):
    with pytest.raises(InputError, match=message):
        parse_trackers(text)


def test_wandb_where_it_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if it were not
    with pytest.raises(InputError, match="--tracker wandb: needs a package that is missing: pip install wandb"):
        parse_trackers("wandb")
    assert parse_trackers("tensorboard") == ("tensorboard",)


def test_metrics_are_written_whatever_is_chosen(tmp_path):
    with RunLog(tmp_path, 0, ("jsonl",)) as log:
        log.write(1, {"loss": 1.0})
    assert {path.name for path in tmp_path.iterdir()} == {METRICS, CURVE}
    with RunLog(tmp_path, 1, ("jsonl", "tensorboard")) as log:
        log.write(2, {"loss": 1.0})
    assert {path.name for path in tmp_path.iterdir()} == {METRICS, CURVE, TENSORBOARD}


def test_the_id_of_a_run_stays(tmp_path):
    assert run_id(tmp_path) == run_id(tmp_path) == json.loads((tmp_path / RECORD).read_text())["id"]
    (tmp_path / RECORD).write_text("{}")
    with pytest.raises(InputError, match=r"wandb\.json: has no id; remove it to begin another run in wandb"):
        run_id(tmp_path)


def test_wandb_has_what_metrics_have_and_a_resumed_run_is_the_same(tmp_path):
    pytest.importorskip("wandb", reason="wandb is not installed")
    folder = tmp_path / "run"
    for last, end in ((0, 4), (3, 7)):
        done = offline(folder, last, end)
        assert done.returncode == 0, done.stderr
    ids, config, rows, codes = logged(folder)
    assert ids == {run_id(folder)}
    assert {key: config[key] for key in ("learning_rate", "model")} == {"learning_rate": 0.5, "model": "m"}
    lines = [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
    assert rows == [(line["step"], {"loss": line["loss"], "tokens": line["tokens"]}) for line in lines]
    assert [step for step, _ in rows] == list(range(7))
    assert codes == [0, 0]


def test_a_run_outlives_wandb_and_its_error_is_told_it(tmp_path):
    pytest.importorskip("wandb", reason="wandb is not installed")
    done = offline(tmp_path / "run", 0, 5, "go on")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("wandb takes no more numbers (") == 1
    assert len((tmp_path / "run" / METRICS).read_text().splitlines()) == 5


def test_nobody_signed_in_is_one_line(tmp_path):
    pytest.importorskip("wandb", reason="wandb is not installed")
    done = offline(tmp_path / "run", 0, 1, mode="online")
    *_, last = done.stderr.strip().splitlines()
    assert last.endswith(
        "InputError: --tracker wandb: No API key configured; run `wandb login`, or set WANDB_MODE=offline, or leave "
        "wandb out"
    )
