"""What experiments/depth_law computes: toy networks against torch, the law on a made-up table, a sweep in seconds."""

import csv
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from lesa_jax.base.errors import InputError

# experiments/ is no package: its scripts are run, and import one another by name.
sys.path.insert(0, str(Path(__file__).parents[2] / "experiments" / "depth_law"))
sys.path.insert(0, str(Path(__file__).parents[2] / "experiments" / "beds"))

import chinchilla
import looping
import records
import sweep
import sweep_report
import sweep_runs
import toy

SMALL = toy.Settings(depths=(2, 3), seeds=1, steps=4, batch_size=8, width=8, vocabulary=12, teacher_layers=16, every=2)


def torch_stream(layers: toy.Layers, x: torch.Tensor) -> torch.Tensor:
    for read, bias, write in zip(*(torch.tensor(np.asarray(leaf)) for leaf in layers), strict=True):
        read_x = torch.nn.functional.linear(torch.nn.functional.rms_norm(x, x.shape[-1:]), read, bias)
        x = x + torch.nn.functional.linear(torch.relu(read_x) ** 2, write)
    return torch.nn.functional.rms_norm(x, x.shape[-1:])


@pytest.mark.slow
def test_losses_are_torchs():
    teachers = toy.make_teachers(SMALL)
    own = jax.tree.map(lambda leaf: leaf[1], toy.make_teachers(replace(SMALL, seeds=2, teacher_layers=3)).layers)
    students = {"3": jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (2, 2, *leaf.shape)), own)}
    inputs = np.random.default_rng(0).standard_normal((5, 8)).astype(np.float32)
    found = toy.losses(students, teachers, jnp.asarray(inputs), (0.1, 1.0))["3"]
    x = torch.nn.functional.rms_norm(torch.from_numpy(inputs), (8,))
    for number in range(2):
        head = torch.tensor(np.asarray(teachers.head[number]))
        wanted = torch_stream(jax.tree.map(lambda leaf, n=number: leaf[n], teachers.layers), x) @ head.T
        said = torch_stream(own, x) @ head.T
        for place, warm in enumerate((0.1, 1.0)):
            expected = torch.nn.functional.kl_div(
                (said / warm).log_softmax(-1), (wanted / warm).log_softmax(-1), reduction="batchmean", log_target=True
            )
            assert found[number, place] == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.slow
def test_students_begin_as_the_identity_and_independent_layers_walk_at_random():
    state, teachers = toy.first_state(SMALL), toy.make_teachers(replace(SMALL, width=64, teacher_layers=64))
    for student in state.students.values():
        turned, _ = toy.turns(student)
        assert (turned == 0).all()
    measured = toy.test(toy.first_state(SMALL), toy.make_teachers(SMALL), SMALL)
    np.testing.assert_allclose(measured["2"], measured["3"], rtol=1e-6)
    turned, bent = toy.turns(jax.tree.map(lambda leaf: leaf[:, None], teachers.layers))
    assert (turned > 0).all()
    assert np.degrees(bent[0, 0]) == pytest.approx(90, abs=5)
    assert np.degrees(bent[1, 0]) < 45  # one layer again and again


@pytest.mark.slow
def test_each_student_learns_from_its_own_loss_alone():
    teachers = toy.make_teachers(SMALL)
    both = toy.train(toy.first_state(SMALL), teachers, SMALL)
    alone = replace(SMALL, depths=(3,), temperatures=(1.0,))
    first = toy.first_state(SMALL)
    one = jax.tree.map(lambda leaf: leaf[:, 1:], first.students["3"])
    begun = toy.first_state(alone)._replace(students={"3": one})
    trained = toy.train(begun, teachers, alone)
    for mine, other in zip(trained.students["3"], both.students["3"], strict=True):
        np.testing.assert_allclose(mine[:, 0], other[:, 1], atol=1e-5)  # a step is of 2e-3
    assert not np.allclose(trained.students["3"].write, 0)


@pytest.mark.slow
def test_toys_go_on_where_they_were_stopped(tmp_path):
    settings = replace(SMALL, work=tmp_path / "whole", results=tmp_path / "whole")
    toy.main(settings)
    again = replace(SMALL, work=tmp_path / "stopped", results=tmp_path / "stopped")
    teachers = toy.make_teachers(again)
    state = toy.train(toy.first_state(again), teachers, again)
    measured = {depth: own.tolist() for depth, own in toy.test(state, teachers, again).items()}
    toy.keep(again, state, [[2, measured]])
    toy.main(again)
    for kind in ("csv", "md", "png"):
        assert (settings.results / f"toy_depth.{kind}").read_bytes() == (
            again.results / f"toy_depth.{kind}"
        ).read_bytes()
    with pytest.raises(InputError, match="of a run with other settings"):
        toy.main(replace(again, batch_size=16))
    with pytest.raises(InputError, match="--steps 5: must be a multiple"):
        toy.main(replace(again, steps=5))


def test_exponents_are_those_of_power_laws():
    settings = replace(SMALL, depths=(6, 12, 24), seeds=2)
    losses = np.array([[3 / depth**own for depth in settings.depths] for own in (1.0, 0.5)])
    np.testing.assert_allclose(toy.exponents(settings, losses), [1, 0.5])


def test_a_made_up_table_gives_back_its_law(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    width = np.exp(rng.uniform(np.log(500), np.log(5000), 245))
    depth = np.round(0.4 * width**0.6 * np.exp(rng.normal(0, 0.2, 245)))
    tokens = np.exp(rng.uniform(np.log(1e9), np.log(1e11), 245))
    noise = np.exp(rng.normal(0, 1e-4, 245))
    loss = (300 * width**-0.95 + 8 / depth**1.2 + 500 * tokens**-0.3 + 1.75) * noise
    table = tmp_path / "table.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*chinchilla.COLUMNS, "loss"])
        writer.writerows(zip(width, depth, tokens, loss, strict=True))
    settings = chinchilla.Settings(table=table, resamples=3, results=tmp_path)
    with pytest.raises(InputError, match="is not the table at https://"):
        chinchilla.main(settings)
    monkeypatch.setattr(chinchilla, "CUTS", (1, 40))  # fewer than there are, for time
    monkeypatch.setattr(chinchilla, "SHA256", sha256(table.read_bytes()).hexdigest())
    chinchilla.main(settings)
    row = next(line for line in (tmp_path / "chinchilla_depth.md").read_text().splitlines() if "| here |" in line)
    found = [float(cell.split()[0]) for cell in row.split("|")[2:6]]
    np.testing.assert_allclose(found, [0.95, 1.2, 0.3, 1.75], rtol=0.02)
    with (tmp_path / "chinchilla_depth.csv").open() as file:
        cuts = list(csv.DictReader(file))
    assert [int(cut["left_out"]) for cut in cuts] == [1, 40]


def test_grown_models_are_held_against_the_law(tmp_path):
    def row(way, base, layers, tokens, rate, loss):
        flops = tokens * (layers + (0.2 if way != sweep_runs.SCRATCH else 0))
        return sweep_runs.Row(way, base, layers, tokens, rate, 0, parameters=1000 * layers, flops=flops, loss=loss)

    scratch = [
        row(sweep_runs.SCRATCH, 0, depth, 1000, rate, 2 + 0.5 / depth + worse)
        for depth in (2, 4, 8, 16)
        for rate, worse in ((1e-3, 0.1), (2e-3, 0.0))
    ]
    grown = [row(sweep_runs.ALL, 4, 8, tokens, 1e-3, loss) for tokens, loss in ((250, 2.08), (500, 2.0))]
    on = row(sweep_runs.ON, 4, 4, 500, 1e-3, 2.11)
    text = sweep_report.write_report(tmp_path / "sweep.md", "A sweep.", [*scratch, *grown, on])
    assert "a = 1 +- " in text
    assert "4 layers, base trained on: does not reach the law's loss at 8 layers: 0.0475 nats are missing." in text
    reached = "4 layers, grown, all layers: reaches the law's loss at 8 layers with 51% of the operations from nothing"
    assert reached in text
    assert (tmp_path / "sweep.png").stat().st_size > 0


def test_rows_come_back_from_their_file(tmp_path):
    row = sweep_runs.Row(sweep_runs.NEW, 4, 8, 500, 1e-3, 1, parameters=10, flops=1e9, loss=2.5)
    records.append(tmp_path / "runs.csv", row)
    [found] = records.recorded(tmp_path / "runs.csv", sweep_runs.Row)
    assert found == row
    assert records.without_results(found, sweep_runs.Run) == sweep_runs.Run(sweep_runs.NEW, 4, 8, 500, 1e-3, 1)


def test_sweeps_that_nothing_can_come_of_are_refused(tmp_path):
    settings = sweep.Settings(data=tmp_path / "data.txt", text=tmp_path / "text.txt", output=tmp_path / "sweep")
    with pytest.raises(InputError, match="--bases 16: needs 16 and 32 among --depths"):
        sweep.check(replace(settings, depths=(4, 8, 16), bases=(4, 16)))
    with pytest.raises(InputError, match="at least three of them"):
        sweep.check(replace(settings, depths=(4, 8), bases=(4,)))
    sweep.check(settings)
    sweep.check(replace(settings, depths=(2, 4, 8), bases=(2,)))  # more depths or fewer are the same sweep
    with pytest.raises(InputError, match="its sweep has --width 48, now it is 32"):
        sweep.check(replace(settings, width=32))


@pytest.mark.slow
def test_a_sweep_trains_grows_and_reports_and_a_second_one_does_nothing(tmp_path, monkeypatch):
    text = tmp_path / "text.txt"
    text.write_text("".join(f"The {i}th of all the words is word {i * i % 97}, and so on.\n" for i in range(3000)))
    settings = sweep.Settings(
        data=text,
        text=text,
        output=tmp_path / "sweep",
        name="test",
        depths=(1, 2, 4),
        bases=(1,),
        width=16,
        vocabulary=300,
        tokens="4K",
        shares=(0.5,),
        batch_size=4,
        rates=(4e-3,),
        grown_rates=(4e-3,),
        results=tmp_path / "results",
    )
    sweep.main(settings)
    rows = sweep.finished(settings)
    assert len(rows) == 2 * (3 + 3)
    by_way = {(row.way, row.layers, row.seed): row for row in rows.values()}
    assert by_way[sweep_runs.NEW, 2, 0].parameters == by_way[sweep_runs.SCRATCH, 2, 0].parameters
    assert by_way[sweep_runs.NEW, 2, 0].flops < by_way[sweep_runs.ALL, 2, 0].flops
    assert by_way[sweep_runs.ON, 1, 1].loss < by_way[sweep_runs.SCRATCH, 1, 1].loss
    table = tmp_path / "results" / "depth_sweep_test.md"
    written = table.read_text()
    assert written.count("layers, grown") == 2
    assert table.with_suffix(".csv").read_bytes() == settings.runs.read_bytes()
    monkeypatch.setattr(sweep, "train", None)  # what is finished is not run again
    sweep.main(settings)
    assert table.read_text() == written


def test_looping_measures_every_block_against_the_model_as_it_is(tmp_path):
    looping.main(
        looping.Settings(characters=1200, size=15, times=2, sequence_length=64, results=tmp_path, name="small")
    )
    rows = list(csv.DictReader((tmp_path / "looping_small.csv").read_text().splitlines()))
    assert [(row["first"], row["last"], row["times"]) for row in rows] == [("0", "14", "2"), ("1", "15", "2")]
    table = (tmp_path / "looping_small.md").read_text()
    once = float(table.partition("perplexity ")[2].split(". ")[0])
    for row in rows:
        assert float(row["change"]) == pytest.approx(np.log(float(row["perplexity"]) / once), abs=1e-3)
        assert f"{float(row['perplexity']):.2f} | {float(row['change']):+.3f} +- {float(row['error']):.3f}" in table
    assert "Better than once by more than two standard errors: 0 of 2." in table
    for wrong in ({"size": 17}, {"size": 0}, {"times": 1}):
        with pytest.raises(InputError, match="--size 1 to 16, --times 2 or more"):
            looping.main(looping.Settings(**wrong))
