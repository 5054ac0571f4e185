"""What a comparison kept is used where it was made from what is there now, and is as if it were not there otherwise."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from lesa_jax.comparison.folder import start
from lesa_jax.comparison.kept import origin, prepare_run, read, write
from lesa_jax.comparison.measure import MeasuredRow, TrainedCurve, keep_curve, keep_row, kept_curve, kept_row
from lesa_jax.comparison.rates import keep_short_runs, known_rate, short_runs
from lesa_jax.comparison.result import Point, ShortRun
from lesa_jax.comparison.settings import CompareSettings
from lesa_jax.comparison.variants import Variant, base_by
from lesa_jax.evaluation.perplexity import Window
from lesa_jax.planning import methods
from tests.support.comparisons import strict
from tests.support.settings import nest

ROW = MeasuredRow(6, (4, 5), 100, 20, 40.0, 3.7)
CURVE = TrainedCurve(
    5e6, 2, (Point(0, 0.0, 0.0, 3.7), Point(10, 5e7, 0.5, 3.5, 2.5)), (Window(7, 3.25), Window(3, 4.0))
)
LESA = Variant("lesa", random=True)
DIGESTS = {"text": "a", "model": {}, "data": ["d"], "versions": {}}
TRAINED = {"train_data": "d", "train_tokens": "2K"}


@pytest.fixture
def begun(tmp_path: Path) -> CompareSettings:
    return begin(tmp_path / "out")


def begin(output: Path, digests=DIGESTS, **options) -> CompareSettings:
    output.mkdir()
    return start(nest(CompareSettings, model="m", output=output, **(TRAINED | options)), b"text", digests)


def test_a_row_and_a_curve_come_back(begun):
    assert kept_row(begun, LESA, 0) is None
    assert kept_curve(begun, LESA, 0) is None
    keep_row(begun, LESA, 0, ROW)
    keep_curve(begun, LESA, 0, CURVE)
    assert kept_row(begun, LESA, 0) == ROW
    assert kept_curve(begun, LESA, 0) == CURVE
    assert kept_row(begun, LESA, 1) is None
    assert kept_row(begun, replace(LESA, also=("x",), control="y"), 0) == ROW


def test_numbers_that_are_none_are_null_and_come_back_as_nan(begun):
    points = (Point(0, 0.0, 0.0, 3.7), Point(10, 5e7, math.nan, math.inf))
    keep_row(begun, LESA, 0, replace(ROW, perplexity=math.inf, nll=math.nan))
    keep_curve(begun, LESA, 0, TrainedCurve(None, None, points, (Window(7, math.inf),)))
    for file in (begun.output / "rows").glob("lesa-0*.json"):
        strict(file.read_text())
    row, curve = kept_row(begun, LESA, 0), kept_curve(begun, LESA, 0)
    assert row is not None
    assert curve is not None
    assert math.isnan(row.perplexity)
    assert math.isnan(row.nll)
    assert math.isnan(curve.points[1].seconds)
    assert curve.points[1].flops == 5e7
    assert math.isnan(curve.points[1].loss)
    assert math.isnan(curve.windows[0].nll)


@pytest.mark.parametrize("damage", ["", "{", "[]", "null", "{}", "NaN", "number", "points", "origin"])
def test_a_damaged_file_is_as_if_it_were_not_there(begun, damage):
    keep_curve(begun, LESA, 0, CURVE)
    file = begun.output / "rows" / "lesa-0.curve.json"
    value = json.loads(file.read_text())
    match damage:
        case "NaN":
            file.write_text(file.read_text().replace("0.5", "NaN"))
        case "number":
            file.write_text(json.dumps(value | {"points": [["a", 0, 0, 0]]}))
        case "points":
            file.write_text(json.dumps(value | {"points": [[1, 2, 3]]}))
        case "origin":
            file.write_text(json.dumps({name: part for name, part in value.items() if name != "made_from"}))
        case _:
            file.write_text(damage)
    assert kept_curve(begun, LESA, 0) is None


@pytest.mark.parametrize("changed", ["text", "model", "data", "versions"])
def test_what_another_comparison_kept_is_not_used(tmp_path, changed):
    """As when files are copied from one folder to another."""
    first = begin(tmp_path / "first")
    keep_row(first, LESA, 0, ROW)
    other = begin(tmp_path / "other", DIGESTS | {changed: "other"})
    row = first.output / "rows" / "lesa-0.json"
    (other.output / "rows" / row.name).write_bytes(row.read_bytes())
    assert kept_row(other, LESA, 0) is None
    assert kept_row(first, LESA, 0) == ROW


def test_what_was_kept_of_a_method_goes_with_its_code(begun, registry):
    def register(initialiser, **parts):
        methods.METHODS.pop("mine", None)
        methods.register("mine", methods.Method("", "", "top", initialiser, **parts))

    mine = Variant("mine")
    register(lambda weights, gaps, key: weights[: len(gaps)])
    for row in (base_by("adamw"), LESA, mine):
        keep_row(begun, row, 0, ROW)
    assert kept_row(begun, mine, 0) == ROW
    register(lambda weights, gaps, key: 2 * weights[: len(gaps)])
    assert kept_row(begun, mine, 0) is None
    keep_row(begun, mine, 0, ROW)
    register(methods.METHODS["mine"].initialiser, scale=0.5)
    assert kept_row(begun, mine, 0) is None
    assert kept_row(begun, base_by("adamw"), 0) == kept_row(begun, LESA, 0) == ROW


def test_short_runs_and_curves_of_their_rate(tmp_path):
    settings = begin(tmp_path / "out", learning_rate="1e-4,1e-3")
    runs = [ShortRun(rate, loss, 10, 1.0, 5.0) for rate, loss in ((1e-4, 3.0), (1e-3, 2.0))]
    assert known_rate(settings, LESA) is None
    keep_short_runs(settings, LESA, runs)
    assert short_runs(settings, LESA) == tuple(runs)
    assert known_rate(settings, LESA) == 1e-3
    keep_curve(settings, LESA, 0, CURVE)
    assert kept_curve(settings, LESA, 0) == CURVE
    keep_short_runs(settings, LESA, [runs[0], replace(runs[1], loss=4.0)])
    assert kept_curve(settings, LESA, 0) is None
    (settings.output / "rows" / "lesa.rates.json").write_text("{")
    assert short_runs(settings, LESA) == ()


def test_a_run_of_another_origin_goes_but_nothing_of_the_users(begun):
    run = begun.output / "runs" / "lesa-0"
    prepare_run(run, "first")
    run.mkdir(parents=True)
    for name in ("run.json", "metrics.jsonl", "mine.txt"):
        (run / name).touch()
    (run / "checkpoints" / "1").mkdir(parents=True)
    prepare_run(run, "first")
    assert len([*run.iterdir()]) == 4
    prepare_run(run, "second")
    assert [path.name for path in run.iterdir()] == ["mine.txt"]


def test_a_folder_that_is_no_run_is_left_alone(begun):
    (begun.output / "runs" / "lesa-0" / "checkpoints").mkdir(parents=True)
    prepare_run(begun.output / "runs" / "lesa-0", "first")
    assert (begun.output / "runs" / "lesa-0" / "checkpoints").is_dir()


def test_origins_differ_by_whatever_is_given(begun):
    origins = [
        origin(begun, base_by("adamw")), origin(begun, LESA), origin(begun, LESA, 0), origin(begun, LESA, 1),
        origin(begun, replace(LESA, placement="top"), 0), origin(begun, replace(LESA, trains="all"), 0),
        origin(begun, replace(LESA, mask=0.5), 0), origin(begun, LESA, 0, 1e-3),
    ]  # fmt: skip
    assert len(set(origins)) == len(origins)


def test_what_cannot_be_read_is_not_there(tmp_path):
    assert read(tmp_path, "x", dict) is None
    with pytest.raises(ValueError, match="JSON"):
        write(tmp_path / "x", "x", {"number": math.nan})
