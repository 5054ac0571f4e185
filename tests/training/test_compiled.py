"""A step compiled for other hardware: this machine's CPU stands in for it, whose compiler is the same kind of thing."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import jax
import pytest

from lesa_jax.base.errors import InputError
from lesa_jax.parallel.compilation import needed
from lesa_jax.parallel.targets import Chip, Target
from lesa_jax.training import compiled
from lesa_jax.training.compiled import compile_for, compiled_step, most_sequences
from lesa_jax.training.compiled_report import advice, print_compiled
from lesa_jax.training.settings import TrainSettings, check_settings
from tests.support.settings import nest

CHIP = Chip("gpu", "NVIDIA H100 80GB HBM3", 1e9, 1e12, 1e11)
TARGET = Target("h100", CHIP, 1, "1x1x1")


@pytest.fixture(scope="module")
def described(place, tmp_path_factory):
    """A folder that says what the model is, without its weights."""
    folder = tmp_path_factory.mktemp("described")
    for name in ("config.json", "growth.json"):
        shutil.copy(place / "grown" / name, folder)
    return folder


def settings(described, **options):
    common = {"model": str(described), "compile_for": "h100", "batch_size": 8, "sequence_length": 64}
    return nest(TrainSettings, **(common | options))


@pytest.fixture(scope="module")
def step(described):
    return compiled_step(settings(described), TARGET, jax.devices()[:1])


def test_no_weights_no_data_and_no_tokenizer_are_asked_for(step):
    assert step.fits
    assert step.total is not None
    assert step.tokens == 8 * 64
    assert step.run.trained > 0


def test_parts_add_up_to_what_the_compiler_needs(step):
    assert sum(step.parts.values()) == step.total
    assert step.parts["trained"] == 4 * step.run.trained
    assert step.parts["activations"] > 0
    assert step.collectives == ()


def test_floors_are_operations_bytes_and_sends_over_the_data_sheet(step):
    floors = step.floor_seconds
    assert floors["compute"] == pytest.approx(step.run.cost.total * step.tokens / 989.4e12)
    assert floors["memory"] > 0
    assert floors["network"] == 0


@pytest.mark.slow
def test_activations_grow_with_the_batch_and_shrink_with_remat(described, step):
    twice = compiled_step(settings(described, batch_size=16), TARGET, jax.devices()[:1])
    assert twice.parts["activations"] == 2 * step.parts["activations"]
    full = compiled_step(settings(described, remat="full"), TARGET, jax.devices()[:1])
    assert full.parts["activations"] < step.parts["activations"] / 4


@pytest.mark.slow
def test_a_batch_in_parts_keeps_what_one_part_needs(described, step):
    parts = compiled_step(settings(described, accumulate=4, batch_size=32), TARGET, jax.devices()[:1])
    assert parts.parts["activations"] == step.parts["activations"]


@pytest.mark.slow
def test_moments_in_bfloat16_are_half_of_it(described, step):
    half = compiled_step(settings(described, moments="bfloat16"), TARGET, jax.devices()[:1])
    assert half.parts["moments"] == step.parts["moments"] // 2
    assert half.total < step.total


def test_the_program_multiplies_what_the_formula_counts(step):
    """Attention has no kernel here: its products are the program's, and over whole blocks, masked or not."""
    cost = step.run.cost
    beside = cost.total - cost.attention
    assert beside < step.per_token(step.products.once) < beside + 3 * cost.attention
    assert step.products.again == 0


def test_the_largest_batch_is_on_the_line_through_the_two_nearest():
    assert compiled.largest({4: 100, 8: 140}, 205.0, 2) == 14
    assert compiled.largest({4: 100, 8: 140, 14: 260}, 205.0, 1) == 11  # it was too many: between 8 and 14
    assert compiled.largest({4: 100, 8: 140, 14: None}, 160.0, 4) == 8
    assert compiled.largest({4: 100, 8: 140}, 50.0, 1) == 0
    assert compiled.largest({4: 100, 8: None}, 200.0, 1) is None
    assert compiled.largest({4: 100, 8: 100}, 200.0, 1) is None
    assert compiled.largest({4: 100, 8: 90}, 200.0, 1) is None


@pytest.mark.slow
def test_the_largest_batch_is_one_that_fits_and_the_next_one_does_not(described, step):
    tight = replace(TARGET, chip=replace(CHIP, memory=3.0 * step.total))
    most = most_sequences(settings(described), replace(step, target=tight), jax.devices()[:1])
    assert most is not None
    totals = [
        compiled_step(settings(described, batch_size=size), tight, jax.devices()[:1]).total for size in (most, 2 * most)
    ]
    assert totals[0] <= 1.05 * tight.chip.memory
    assert totals[1] > tight.chip.memory


def test_the_report_says_the_same_as_json(described, step, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(compiled, "prepare_compilers", lambda: None)  # JAX is in use in this process
    monkeypatch.setattr(compiled, "target_devices", lambda target: jax.devices()[:1])
    found = compile_for(settings(described, report=tmp_path / "report.json"))
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["fits"] is True
    assert report["bytes"]["total"] == step.total
    assert report["bytes"]["frozen"] == step.parts["frozen"]
    assert report["floor_seconds"].keys() == {"compute", "memory", "network"}
    assert report["most_sequences"] == found.most_sequences
    print_compiled(found)
    shown = capsys.readouterr().out
    assert "h100: 1 x NVIDIA H100 80GB HBM3" in shown
    assert "to spare" in shown


def test_each_rule_for_rematerialisation_keeps_less_than_the_one_before(step):
    assert list(step.kept) == ["none", "block", "full"]
    assert step.kept["full"] < step.kept["block"] < step.kept["none"]
    assert step.kept[step.remat] == step.parts["activations"]


def test_attention_without_a_kernel_is_named_with_its_cost(step):
    assert step.run.no_kernel is None  # a CPU has none to miss
    slow = replace(step, run=replace(step.run, no_kernel="it has no soft cap"))
    assert any("no kernel (it has no soft cap)" in line and "two to four times" in line for line in advice(slow))


def test_what_does_not_fit_has_remedies(step):
    small = replace(step, target=replace(TARGET, chip=replace(CHIP, memory=float(step.total // 2))))
    assert not small.fits
    words = " ".join(advice(small))
    assert "--remat full" in words
    assert "more chips" in words or "--accumulate" in words
    refused = replace(step, total=None, parts={k: v for k, v in step.parts.items() if k != "rest"})
    assert not refused.fits
    assert list(advice(refused))


def test_a_tpus_refusal_says_how_much_it_would_need():
    message = "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 20.50G of 15.75G hbm. Exceeded by 4.75G."
    assert needed(message) == int(20.5 * 2**30)
    assert needed("RESOURCE_EXHAUSTED") is None


def test_a_report_without_a_compilation_is_refused(described):
    with pytest.raises(InputError, match="--report: is written by --compile-for"):
        check_settings(nest(TrainSettings, model=str(described), data="x", steps=1, report=described / "x.json"))


def test_the_command_refuses_an_unknown_target_in_one_line(described):
    command = [sys.executable, "-m", "lesa_jax.train", "--model", str(described), "--compile-for", "v9:2x2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    # The plugin of a GPU that is not there logs lines of its own.
    own = [line for line in done.stderr.splitlines() if not re.match(r"WARNING: All log messages|[IWE]\d{4}", line)]
    assert len(own) == 1
    assert "--compile-for v9:2x2: expected a TPU slice" in own[0]
