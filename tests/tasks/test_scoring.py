"""Scores of continuations, against the logits of each text by itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lesa_jax.base.errors import InputError
from lesa_jax.models.buckets import by_shape
from lesa_jax.models.decoder import logits
from lesa_jax.tasks.scoring import Row, row_of, scores
from tests.support.small import small_model

RNG = np.random.default_rng(0)


def tokens(count: int) -> list[int]:
    return RNG.integers(0, 32, count).tolist()


def test_scores_are_those_of_each_text_by_itself_in_the_order_asked():
    params, config = small_model()
    asked = [(tokens(context), tokens(after)) for context, after in [(3, 2), (40, 5), (1, 1), (20, 30), (3, 2), (9, 1)]]
    found = scores(params, config, [row_of(*pair, 64) for pair in asked], batch_size=2)
    for (context, after), (log_likelihood, likeliest) in zip(asked, found, strict=True):
        with jax.default_matmul_precision("highest"):
            logs = jax.nn.log_softmax(logits(params, jnp.array([context + after]), config)[0])
        own = logs[len(context) - 1 : -1]
        np.testing.assert_allclose(log_likelihood, own[np.arange(len(after)), after].sum(), rtol=1e-5)
        assert likeliest == (own.argmax(axis=-1) == np.array(after)).all()


def test_what_would_be_written_is_the_likeliest():
    params, config = small_model()
    text = tokens(6)
    written = list(text)
    for _ in range(4):
        written.append(int(logits(params, jnp.array([written]), config)[0, -1].argmax()))
    other = [*written[:-1], (written[-1] + 1) % 32]
    rows = [row_of(text, whole[6:], 64) for whole in (written, other)]
    assert [score.likeliest for score in scores(params, config, rows, 4)] == [True, False]


def test_a_context_too_long_loses_its_beginning():
    context, after = list(range(10)), [20, 21]
    assert row_of(context, after, 64) == Row([*range(10), 20], after)
    assert row_of(context, after, 5) == Row([6, 7, 8, 9, 20], after)  # with 21, the one behind the last, six
    assert row_of(context, [20, 21, 22], 3) == Row([9, 20, 21], [20, 21, 22])


@pytest.mark.parametrize(("context", "after"), [([], [1]), ([1], []), ([1], [2] * 9)])
def test_what_cannot_be_scored_is_refused(context, after):
    with pytest.raises(InputError, match=f"a continuation of {len(after)} tokens behind {len(context)}; .* 1 to 8"):
        row_of(context, after, 8)


def test_a_batch_has_rows_of_one_shape_and_the_longest_come_first():
    rows = [row_of(tokens(count), [1], 512) for count in (3, 200, 5, 40, 100, 7)]
    found = list(by_shape([row.shape for row in rows], 2))
    assert found == [[1], [4], [3], [0, 2], [5]]
    assert all(len({rows[number].shape for number in batch}) == 1 for batch in found)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_progress_counts_rows_and_the_dtype_is_used(dtype):
    params, config = small_model()
    rows, told = [row_of(tokens(5), tokens(2), 64) for _ in range(5)], []
    found = scores(params, config, rows, 2, dtype, told.append)
    assert sum(told) == 5
    exact = scores(params, config, rows, 2)
    error = max(abs(ours.log_likelihood - other.log_likelihood) for ours, other in zip(found, exact, strict=True))
    assert (error == 0) == (dtype == "float32")
    assert error < 0.5
