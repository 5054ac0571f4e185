"""The rows of a comparison: every model once, each with its control."""

import pytest

from lesa_jax.comparison.lineup import line_up
from lesa_jax.comparison.settings import CompareSettings
from lesa_jax.comparison.variants import Variant
from lesa_jax.planning.methods import Copy, Method, register
from tests.support.settings import nest

LAYERS = 16


def rows(methods: str, train: str | None = "new", **more) -> dict[str, Variant]:
    """By name, base left out; untrained without `train`."""
    training = {} if train is None else {"train_data": "x.txt", "train_tokens": "1M", "train": train}
    base, *grown = line_up(nest(CompareSettings, methods=methods, **training, **more), (LAYERS,))
    assert base.name == "base"
    return {row.name: row for row in grown}


@pytest.mark.parametrize("train", [None, "new", "all"])
def test_one_model_under_two_names_is_one_row(train):
    found = rows("duplicate,tli,llama_pro,tli_zero", train=train)
    assert {name: row.also for name, row in found.items()} == {"duplicate": ("tli",), "llama_pro": ("tli_zero",)}


def test_other_plans_starts_and_trainings_are_other_rows():
    assert [*rows("duplicate,tli", train=None, placements="top,even")] == ["duplicate-top", "duplicate-even"]
    assert [*rows("duplicate,lemon,tli_zero", train=None)] == ["duplicate", "lemon", "tli_zero"]
    assert [*rows("duplicate,tli", train="published", controls=False)] == ["duplicate", "tli"]
    assert [*rows("lesa,lesa_raw,shuffled,random,average", controls=False)] == [
        "lesa", "lesa_raw", "shuffled", "random", "average",
    ]  # fmt: skip
    assert [*rows("opt_deus,identity", controls=False)] == ["opt_deus", "identity"]


def test_a_mask_counts_only_where_something_is_trained():
    assert rows("interpolate,msg", train=None)["interpolate"].also == ("msg",)
    assert [*rows("interpolate,msg", controls=False)] == ["interpolate", "msg"]


def test_one_method_at_two_places_that_are_one():
    [lesa] = line_up(CompareSettings(methods="lesa", placements="top,ends", layers=17), (LAYERS,))[1:]
    assert (lesa.name, lesa.also) == ("lesa-top", ("lesa (ends)",))


def test_a_method_that_cannot_be_grown_stays_a_row_of_its_own():
    assert [*rows("solar,duplicate", layers=40, train=None)] == ["solar", "duplicate"]
    found = line_up(
        nest(CompareSettings, methods="solar,lesa", layers=40, train_data="x", train_tokens="1M"), (LAYERS,)
    )
    assert [row.name for row in found] == ["base", "solar", "lesa", "identity"]
    assert [row.control for row in found] == [None, None, "identity", None]


@pytest.mark.parametrize(
    ("methods", "more", "expected"),
    [
        ("lesa,average,random", {}, {"lesa": "identity", "average": "identity", "random": "identity"}),
        ("lesa", {"placements": "even"}, {"lesa-even": "identity-even"}),
        ("lesa,identity", {"placements": "top"}, {"lesa-top": "identity-top"}),
        ("duplicate", {}, {"duplicate": "identity-as-duplicate"}),
        ("duplicate,llama_pro", {}, {"duplicate": "llama_pro"}),
        ("duplicate,lesa", {"placements": "top"}, {"duplicate-top": "identity-top", "lesa-top": "identity-top"}),
        ("solar,g_stack", {}, {"solar": "identity-as-solar", "g_stack": "identity-as-g_stack"}),
        ("interpolate,msg,lemon", {}, {"interpolate": "lemon", "msg": "lemon"}),
        ("msg", {}, {"msg": "identity-as-msg"}),
        ("llama_pro,identity", {}, {}),
    ],
)
def test_every_row_has_its_control(methods, more, expected):
    found = rows(methods, **more)
    assert {name: row.control for name, row in found.items() if row.control} == expected
    assert found.keys() == {*expected, *expected.values()} or not expected


def test_a_control_has_the_places_and_the_training_of_its_row():
    found = rows("lesa,solar", train="published")
    assert (found["identity"].trains, found["identity"].place) == ("new", "top")
    control = found["identity-as-solar"]
    assert (control.trains, control.place, control.copier, control.like) == ("all", "overlap", "solar", "solar")


def test_a_control_is_trained_by_the_optimizer_of_its_row():
    found = line_up(nest(CompareSettings, methods="lesa,tli_zero,llama_pro", train_data="x", train_tokens="1M",
                         optimizer="adamw,muon"), (LAYERS,))  # fmt: skip
    assert [row.name for row in found] == [
        "base", "base-by-muon", "lesa", "lesa-by-muon", "tli_zero", "tli_zero-by-muon", "identity", "identity-by-muon",
    ]  # fmt: skip
    assert {row.name: row.control for row in found if row.control} == {
        "lesa": "identity", "lesa-by-muon": "identity-by-muon",
    }  # fmt: skip
    assert found[4].also == found[5].also == ("llama_pro",)


def test_a_control_replays_as_much_as_its_row():
    job = nest(CompareSettings, methods="lesa,tli_zero,llama_pro", train_data="x", train_tokens="1M", replay="0.25,0",
               replay_data="old")  # fmt: skip
    found = line_up(job, (LAYERS,))
    assert {row.name: row.control for row in found if row.control} == {
        "lesa": "identity", "lesa-replay-0.25": "identity-replay-0.25",
    }  # fmt: skip
    assert [row.replay for row in found] == [0.25, 0] * 4
    assert {row.name for row in found if row.also == ("llama_pro",)} == {"tli_zero", "tli_zero-replay-0.25"}


def test_adapters_are_rows_of_the_original_beside_base():
    job = nest(CompareSettings, methods="lesa", train_data="x", train_tokens="1M", optimizer="adamw,muon", lora=True)
    found = line_up(job, (LAYERS,), lora_rank=7)
    assert [row.name for row in found][:4] == ["base", "base-by-muon", "lora", "lora-by-muon"]
    assert [row.is_original for row in found][:5] == [True, True, True, True, False]
    assert {row.trains for row in found if row.method == "lora"} == {"lora:7"}


def test_a_measured_place_has_its_control_and_may_be_another_place():
    ranking = (3, 15, *range(3), *range(4, 15))
    job = nest(CompareSettings, methods="llama_pro,lesa", layers=18, placements="importance,top", train_data="x",
               train_tokens="1M")  # fmt: skip
    found = line_up(job, (LAYERS,), rankings={"importance": ranking})
    assert {row.name: row.control for row in found} == {
        "base": None, "llama_pro-importance": None, "llama_pro-top": None,
        "lesa-importance": "llama_pro-importance", "lesa-top": "llama_pro-top",
    }  # fmt: skip
    same = line_up(job, (LAYERS,), rankings={"importance": tuple(reversed(range(16)))})
    assert {row.name: row.also for row in same if row.also}["lesa-importance"] == ("lesa (top)",)


def test_controls_are_left_out_on_request_and_where_nothing_is_trained():
    assert [*rows("lesa,solar", controls=False)] == ["lesa", "solar"]
    assert [*rows("lesa,solar", train=None)] == ["lesa", "solar"]
    assert rows("lesa,identity", controls=False)["lesa"].control == "identity"


def test_methods_of_ones_own(registry):
    """A control trained as none of the others has a name of its own; a method without a copying like has none."""

    def mean(weights, gaps, key):
        return weights

    register("whole", Method("", "", "top", mean, trains="all"))
    register("whole_too", Method("", "", "top", mean, trains="all"))
    register("last", Method("", "", "even", mean, after_last=True))
    register("piled", Method("", "", "overlap", mean))
    register("copies", Method("", "", "even", Copy(), after_last=True))
    found = rows("whole,whole_too,last,piled,lesa,copies", train="published")
    assert found["whole"].also == ("whole_too",)
    assert found["whole"].control == "identity-as-whole"
    assert found["identity-as-whole"].trains == "all"
    assert found["lesa"].control == "identity"
    assert found["last"].control == found["copies"].control == "identity-as-last"
    assert found["identity-as-last"].copier == "llama_pro"
    assert found["piled"].control == "identity-as-piled"
