"""Requests of several grown models, and how their results depend on what comes together: not at all."""

import re
import weakref
from dataclasses import replace
from itertools import chain
from pathlib import Path

import jax
import numpy as np
import pytest

from lesa_jax.base.errors import InputError
from lesa_jax.base.scratch import Scratch
from lesa_jax.base.stages import Meter
from lesa_jax.growth.matrices import OldMatrices, batch_bytes, compute_matrices
from lesa_jax.growth.requests import Request
from lesa_jax.initializers.lesa import svd
from lesa_jax.initializers.lesa.predict import decompose_together
from lesa_jax.planning.methods import Formula, Lesa, PredictorSettings

SETTINGS = PredictorSettings(hidden_size=24, epochs=2, batch_size=16)
GAPS = (1, 3)


def lower_neighbour(weights, gaps, key):
    return weights[np.array(gaps)]


PLAIN = Request(Lesa(), GAPS, 0, SETTINGS)
COPY = Request(Formula(lower_neighbour), GAPS)
REQUESTS = {
    "plain": PLAIN,
    "elsewhere": Request(Lesa(), (0, 2, 2), 0, SETTINGS),
    "raw": Request(Lesa("raw"), GAPS, 0, SETTINGS),
    "shuffled": Request(Lesa(shuffled=True), GAPS, 0, SETTINGS),
    "seed": Request(Lesa(), GAPS, 1, SETTINGS),
    "rank": Request(Lesa(), GAPS, 0, replace(SETTINGS, rank=5)),
    "function": COPY,
}


def old(name: str, w: np.ndarray) -> OldMatrices:
    return OldMatrices(name, w.shape, w.dtype, w.__getitem__)


def kinds(count: int) -> list[OldMatrices]:
    w = np.random.default_rng(0).standard_normal((count, 5, 40, 24), np.float32)
    return [old(f"kind {i}", w[i]) for i in range(count)]


def compute(kinds, requests) -> list[list[np.ndarray | InputError]]:
    """By kind and request."""
    found: dict[tuple[int, int], np.ndarray | InputError] = {}
    for k, i, new in compute_matrices(kinds, requests, Scratch(Path(), 10**9), Meter()):
        try:
            found[k, i] = np.stack([np.asarray(matrix) for matrix in new.matrices])
        except InputError as error:
            found[k, i] = error
    return [[found[k, i] for i in range(len(requests))] for k in range(len(kinds))]


def test_a_kind_and_a_request_do_not_depend_on_their_company():
    together = compute(kinds(3), list(REQUESTS.values()))
    for i, request in enumerate(REQUESTS.values()):
        [[alone]] = compute(kinds(3)[1:2], [request])
        np.testing.assert_array_equal(alone, together[1][i])
    assert not np.array_equal(together[0][0], together[1][0])


def test_requests_of_one_predictor_share_its_training(monkeypatch):
    trained = []

    def learn(*arguments):
        from lesa_jax.initializers.lesa.predict import learn as original

        trained.append(arguments)
        return original(*arguments)

    monkeypatch.setattr("lesa_jax.growth.matrices.learn", learn)
    compute(kinds(1), list(REQUESTS.values()))
    assert len(trained) == 5  # plain and elsewhere are one; raw, shuffled, another seed and a rank are four more


def test_the_kind_is_decomposed_once_in_each_space_and_rank(monkeypatch):
    found = []

    def decompose(w, space, room, rank):
        from lesa_jax.initializers.lesa.predict import decompose as original

        found.append((space, rank))
        return original(w, space, room, rank)

    monkeypatch.setattr("lesa_jax.growth.matrices.decompose", decompose)
    compute(kinds(2), list(REQUESTS.values()))
    assert found == 2 * [("svd", None), ("raw", None), ("svd", 5)]


@pytest.mark.slow
def test_batched_kinds_agree_with_kinds_one_by_one(monkeypatch):
    """The path of accelerators, where all kinds train in one vmapped loop."""
    monkeypatch.setattr(svd, "descending_eigh", svd._device_eigh)  # another solver gives directions other signs
    requests = list(REQUESTS.values())
    one_by_one = compute(kinds(2), requests)
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    batched = compute(kinds(2), requests)
    assert len(batched) == 2
    for a, b in zip(chain(*one_by_one), chain(*batched), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_kinds_that_do_not_fit_on_an_accelerator_stay_on_the_host(monkeypatch):
    """By the path of a CPU, but that the accelerator finds the eigenvectors."""
    monkeypatch.setattr(svd, "descending_eigh", svd._device_eigh)
    expected = compute(kinds(1), [PLAIN, REQUESTS["raw"]])
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    monkeypatch.setattr("lesa_jax.growth.matrices.batch_bytes", lambda: 1)
    trained = []
    monkeypatch.setattr("lesa_jax.growth.matrices.learn_together", lambda *_: trained.append(1))
    np.testing.assert_array_equal(compute(kinds(1), [PLAIN, REQUESTS["raw"]]), expected)
    assert not trained


def test_an_accelerator_takes_what_its_memory_holds():
    class Device:
        def __init__(self, limit: int | None):
            self.limit = limit

        def memory_stats(self) -> dict[str, int] | None:
            return self.limit and {"bytes_limit": self.limit}

    assert [batch_bytes(Device(limit)) for limit in (None, 1 << 29, 1 << 36)] == [1 << 28, 1 << 28, 1 << 34]
    assert batch_bytes() == 1 << 28  # this CPU


def test_kinds_that_train_together_lie_in_memory_once():
    """Before a kind is taken apart, those before it lie in the stack and nowhere else."""
    alive = []

    def read():
        for i, w in enumerate(np.random.default_rng(0).standard_normal((3, 5, 46, 22), np.float32)):
            alive.append(sum(x.nbytes for x in jax.live_arrays() if x.shape[-3:] == (5, 46, 22)))
            yield w
            del i, w

    stack = decompose_together(read(), 3, "svd")
    kind = stack.v.nbytes // 3
    assert max(alive) <= stack.v.nbytes + kind  # the one before may be on its way out


def test_layers_are_read_one_by_one_and_kinds_when_they_are_due():
    alive, most, read = set(), 0, []
    w = np.random.default_rng(0).standard_normal((2, 9, 40, 24), np.float32)

    def reader(kind: int):
        def layer(number: int) -> np.ndarray:
            nonlocal most
            matrix = w[kind, number].copy()
            alive.add(number)
            weakref.finalize(matrix, alive.discard, number)
            most = max(most, len(alive))
            read.append(kind)
            return matrix

        return layer

    both = [OldMatrices(f"kind {i}", w[i].shape, w.dtype, reader(i)) for i in range(2)]
    _, _, new = next(compute_matrices(both, [PLAIN], Scratch(Path(), 10**9), Meter()))
    assert len(list(new.matrices)) == len(GAPS)
    assert set(read) == {0}
    assert most <= 4  # one at work, one read ahead, and those on their way out


def test_formulas_get_weights_a_gap_and_a_key_of_their_own():
    calls = []

    def record(weights, gaps, key):
        calls.append((weights.shape, gaps, tuple(jax.random.key_data(key).tolist())))
        return weights[: len(gaps)]

    compute(kinds(2), [Request(Formula(record), (1, 3, 3))])
    assert [call[:2] for call in calls] == [((5, 40, 24), (1,)), ((5, 40, 24), (3, 3))] * 2
    assert len({call[2] for call in calls}) == 4


@pytest.mark.parametrize("gaps", [(4,), (-1,)])
def test_impossible_gaps(gaps):
    with pytest.raises(InputError, match="gaps go from 0 to 3"):
        compute(kinds(1), [Request(Lesa(), gaps, 0, SETTINGS)])


def raising(weights, gaps, key):
    raise TypeError("two\nlines")


def in_place(weights, gaps, key):
    weights[:] = 0
    return weights[: len(gaps)]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (raising, "method mine: its initialiser raised TypeError: two lines"),
        (in_place, "raised ValueError: assignment destination is read-only"),
        (lambda weights: weights, "raised TypeError"),
        (lambda weights, gaps, key: None, "raised TypeError"),
        (lambda weights, gaps, key: "matrices", "raised TypeError"),
        (lambda weights, gaps, key: [weights[0], weights[0, 0]], "raised ValueError"),
        (lambda weights, gaps, key: weights[0], r"gave shape \(40, 24\); return \(1, 40, 24\)"),
        (lambda weights, gaps, key: weights[:1].astype(complex), "dtype complex64; return floating-point"),
        (lambda weights, gaps, key: weights[:1] > 0, "dtype bool; return floating-point"),
    ],
)
def test_whatever_a_function_does_wrong_fails_its_own_request(function, message):
    """The others get what they get alone."""
    [[broken, fine, plain]] = compute(kinds(1), [Request(Formula(function), (0, 1, 3), method="mine"), COPY, PLAIN])
    assert isinstance(broken, InputError)
    assert re.search(message, str(broken))
    assert "\n" not in str(broken)
    [[fine_alone, plain_alone]] = compute(kinds(1), [COPY, PLAIN])
    np.testing.assert_array_equal(fine, fine_alone)
    np.testing.assert_array_equal(plain, plain_alone)


def test_whole_numbers_are_numbers():
    [[new]] = compute(kinds(1), [Request(Formula(lambda weights, gaps, key: np.ones((1, 40, 24), np.int8)), GAPS)])
    assert isinstance(new, np.ndarray)
    assert new.dtype == np.float32
