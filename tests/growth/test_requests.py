"""Orders of several grown models, and how their results depend on what comes together: not at all."""

from itertools import chain

import jax
import numpy as np
import pytest

from lesa_jax.growth.requests import NamedKind, Order, fill_orders
from lesa_jax.initializers.lesa.predictor import PredictorSettings
from lesa_jax.planning.methods import Lesa

SETTINGS = PredictorSettings(hidden_size=24, epochs=2, batch_size=16)
GAPS = (1, 3)


def lower_neighbour(weights, gaps, key):
    return weights[np.array(gaps)]


PLAIN = Order(Lesa(), GAPS, 0, SETTINGS)
ORDERS = {
    "plain": PLAIN,
    "elsewhere": Order(Lesa(), (0, 2, 2), 0, SETTINGS),
    "raw": Order(Lesa("raw"), GAPS, 0, SETTINGS),
    "shuffled": Order(Lesa(shuffled=True), GAPS, 0, SETTINGS),
    "seed": Order(Lesa(), GAPS, 1, SETTINGS),
    "function": Order(lower_neighbour, GAPS),
}


def kinds(count: int) -> list[NamedKind]:
    w = np.random.default_rng(0).standard_normal((count, 5, 40, 24), np.float32)
    return [NamedKind(f"kind {i}", w[i]) for i in range(count)]


def test_a_kind_and_an_order_do_not_depend_on_their_company():
    together = list(fill_orders(kinds(3), list(ORDERS.values())))
    for i, order in enumerate(ORDERS.values()):
        [[alone]] = fill_orders(kinds(3)[1:2], [order])
        np.testing.assert_array_equal(alone.weights, together[1][i].weights)
    assert not np.array_equal(together[0][0].weights, together[1][0].weights)


def test_orders_of_one_predictor_share_its_training(monkeypatch):
    trained = []

    def learn(*arguments):
        from lesa_jax.initializers.lesa.predict import learn as original

        trained.append(arguments)
        return original(*arguments)

    monkeypatch.setattr("lesa_jax.growth.requests.learn", learn)
    list(fill_orders(kinds(1), list(ORDERS.values())))
    assert len(trained) == 4  # plain and elsewhere are one; raw, shuffled and another seed are three more


def test_the_kind_is_decomposed_once_in_each_space(monkeypatch):
    spaces = []

    def decompose(w, space):
        from lesa_jax.initializers.lesa.predict import decompose as original

        spaces.append(space)
        return original(w, space)

    monkeypatch.setattr("lesa_jax.growth.requests.decompose", decompose)
    list(fill_orders(kinds(2), list(ORDERS.values())))
    assert sorted(spaces) == ["raw", "raw", "svd", "svd"]


def test_batched_kinds_agree_with_kinds_one_by_one(monkeypatch):
    """The path of accelerators, where all kinds train in one vmapped loop."""
    orders = list(ORDERS.values())
    one_by_one = list(fill_orders(kinds(2), orders))
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    batched = list(fill_orders(kinds(2), orders))
    assert len(batched) == 2
    for a, b in zip(chain(*one_by_one), chain(*batched), strict=True):
        np.testing.assert_allclose(a.weights, b.weights, rtol=1e-3, atol=1e-3)


def test_kinds_are_taken_when_they_are_due():
    """An iterator of kinds keeps one of them in memory."""
    taken = []

    def read():
        for kind in kinds(2):
            taken.append(kind.name)
            yield kind

    filled = fill_orders(read(), [PLAIN])
    next(filled)
    assert taken == ["kind 0"]


def test_functions_get_weights_gaps_and_a_key_of_their_own():
    calls = []

    def record(weights, gaps, key):
        calls.append((weights.shape, gaps, jax.random.key_data(key).tolist()))
        return weights[: len(gaps)]

    list(fill_orders(kinds(2), [Order(record, GAPS)]))
    assert [call[:2] for call in calls] == [((5, 40, 24), GAPS)] * 2
    assert calls[0][2] != calls[1][2]


@pytest.mark.parametrize("gaps", [(4,), (-1,)])
def test_impossible_gaps(gaps):
    with pytest.raises(Exception, match="gaps go from 0 to 3"):
        next(fill_orders(kinds(1), [Order(Lesa(), gaps, 0, SETTINGS)]))
