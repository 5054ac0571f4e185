"""What a comparison is asked for."""

from lesa_jax.comparison.settings import CompareSettings
from lesa_jax.comparison.variants import BASE, variants
from lesa_jax.planning.methods import METHODS
from tests.support.settings import nest

TRAINING = {"train_data": "corpus.txt", "train_tokens": "1M"}


def test_variants():
    job = CompareSettings(methods="lesa,solar", placements="top, even")
    base, *asked = variants(job)
    assert base == BASE
    assert [(variant.method, variant.placement) for variant in asked] == [
        ("lesa", "top"), ("lesa", "even"), ("solar", None),
    ]  # fmt: skip
    assert [variant.name for variant in variants(job)] == ["base", "lesa-top", "lesa-even", "solar"]
    assert [variant.place for variant in variants(job)] == ["-", "top", "even", "overlap"]
    assert len(variants(CompareSettings())) == 1 + len(METHODS)


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
