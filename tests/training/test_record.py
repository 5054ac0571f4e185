"""growth.json of a trained model keeps apart what was measured when it was grown and when it was trained."""

from lesa_jax.planning.record import Growth, read_growth
from lesa_jax.training.job import make_train_job
from lesa_jax.training.record import trained_growth
from tests.support.settings import train_settings


def test_numbers_of_the_untrained_model_are_named_so(place):
    growth = read_growth(place / "grown", 6)
    at_growth = {"perplexity": {"before": 36.9, "after": 38.3}, "kinds": {}}
    growth = Growth(growth.method, growth.plan, {}, {}, {"parameters": growth.measurements["parameters"], **at_growth})
    job = make_train_job(train_settings(place, "run"))
    once = trained_growth(growth, job, {"eval_loss": (6.2, 5.5)})["measurements"]
    assert once["parameters"] == growth.measurements["parameters"]
    assert once["at_growth"] == at_growth
    assert list(once) == ["parameters", "at_growth", "trained"]
    training = {"stage": "pretrain", "train": "new", "steps": 6, "tokens": 6 * 8 * 32}
    assert once["trained"] == [training | {"loss": {"before": 6.2, "after": 5.5}}]
    twice = trained_growth(Growth(growth.method, growth.plan, {}, {}, once), job, {})["measurements"]
    assert twice["at_growth"] == at_growth
    assert twice["trained"] == [*once["trained"], training | {"loss": {"before": None, "after": None}}]
