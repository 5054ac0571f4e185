"""What a comparison is asked for."""

import pytest

from lesa_jax.base.errors import InputError
from lesa_jax.comparison.settings import CompareSettings, check_settings
from lesa_jax.comparison.variants import Variant, variants
from lesa_jax.planning.methods import METHODS
from tests.support.settings import nest

TRAINING = {"train_data": "corpus.txt", "train_tokens": "1M"}


def test_variants():
    job = CompareSettings(methods="lesa,solar", placements="top, even")
    base, *asked = variants(job)
    assert base == Variant("base", trains="all")
    assert base.is_original
    assert not asked[0].is_original
    assert [(variant.method, variant.placement) for variant in asked] == [
        ("lesa", "top"), ("lesa", "even"), ("solar", None),
    ]  # fmt: skip
    assert [variant.name for variant in variants(job)] == ["base", "lesa-top", "lesa-even", "solar"]
    assert [variant.place for variant in variants(job)] == ["-", "top", "even", "overlap"]
    assert len(variants(CompareSettings())) == 1 + len(METHODS)


def test_every_row_stands_once_for_each_optimizer():
    job = nest(CompareSettings, methods="lesa,solar", placements="top", optimizer="muon,adamw", **TRAINING)
    assert [row.name for row in variants(job)] == [
        "base-by-muon", "base", "lesa-top-by-muon", "lesa-top", "solar-by-muon", "solar",
    ]  # fmt: skip
    assert [row.is_original for row in variants(job)] == [True, True, False, False, False, False]
    assert [row.trains for row in variants(job)][:3] == ["all", "all", "new"]


def test_every_row_stands_once_for_each_share_of_replay():
    job = nest(
        CompareSettings, methods="lesa", optimizer="adamw,muon", replay="0, 0.1,0.10", replay_data="old.txt", **TRAINING
    )
    found = variants(job, lora_rank=3)
    assert [row.name for row in found][:4] == ["base", "base-replay-0.1", "base-by-muon", "base-by-muon-replay-0.1"]
    assert [(row.method, row.optimizer, row.replay) for row in found] == [
        (method, rule, share) for method in ("base", "lora", "lesa") for rule in ("adamw", "muon") for share in (0, 0.1)
    ]
    assert len({row.name for row in found}) == 12
    assert [row.replay for row in variants(nest(CompareSettings, methods="lesa", **TRAINING))] == [0, 0]


@pytest.mark.parametrize("shares", ["", ",", "1", "-0.1", "0,1.5", "nan", "inf", "some", "10 %"])
def test_shares_that_are_none_are_refused(shares):
    with pytest.raises(InputError, match="--replay .*: expected shares from 0 to below 1, as in 0,0.1"):
        check_settings(nest(CompareSettings, replay=shares, replay_data="old.txt", **TRAINING))


@pytest.mark.parametrize("optimizer", ["", ",", "sgd", "adamw,lion"])
def test_unknown_optimizers_are_refused(optimizer):
    with pytest.raises(InputError, match="--optimizer .*: known are adamw, muon, muon-outputs; several with commas"):
        check_settings(nest(CompareSettings, optimizer=optimizer, **TRAINING))


def test_only_random_variants_start_from_a_model_for_each_seed():
    base, lesa, solar = variants(CompareSettings(methods="lesa,solar"))
    assert [[*variant.starts(3)] for variant in (base, lesa, solar)] == [[0], [0, 1, 2], [0]]
    assert [variant.start(2) for variant in (base, lesa, solar)] == [0, 2, 0]


def test_published_trains_what_each_paper_trains():
    methods = "lesa,llama_pro,solar,g_stack,interpolate,lemon,msg"
    published = variants(nest(CompareSettings, methods=methods, train="published", **TRAINING))
    assert [row.trains for row in published] == ["all", "new", "new", "all", "all", "all", "all", "all"]
    for train in ("new", "all", "new+norms", "mlp"):
        base, *grown = variants(nest(CompareSettings, methods=methods, train=train, **TRAINING))
        assert base.trains == "all"
        assert {row.trains for row in grown} == {train}


def test_a_mask_is_of_msg_where_something_is_trained():
    trained = variants(nest(CompareSettings, methods="interpolate,msg", **TRAINING))
    assert [row.mask for row in trained] == [0, 0, 0.2]
    assert {row.mask for row in variants(CompareSettings(methods="interpolate,msg"))} == {0}
