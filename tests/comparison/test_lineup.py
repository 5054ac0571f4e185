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
    base, *grown = line_up(nest(CompareSettings, methods=methods, **training, **more), LAYERS)
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
    [lesa] = line_up(CompareSettings(methods="lesa", placements="top,ends", layers=17), LAYERS)[1:]
    assert (lesa.name, lesa.also) == ("lesa-top", ("lesa (ends)",))


def test_a_method_that_cannot_be_grown_stays_a_row_of_its_own():
    assert [*rows("solar,duplicate", layers=40, train=None)] == ["solar", "duplicate"]
    found = line_up(nest(CompareSettings, methods="solar,lesa", layers=40, train_data="x", train_tokens="1M"), LAYERS)
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
