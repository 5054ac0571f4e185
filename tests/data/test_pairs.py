"""Span corruption and pairs: exact counts, nothing lost, and rows that hold what they say."""

import json

import numpy as np
import pytest

from lesa_jax.base.errors import InputError
from lesa_jax.data import open_data
from lesa_jax.data.corruption import Corruption, corrupted_lengths, find_corruption, span_counts
from lesa_jax.data.loader import make_loader
from lesa_jax.data.pairs import PairRows
from tests.support.tokenizers import tiny_tokenizer

SENTINELS = tuple(range(999, 899, -1))
CORRUPTION = Corruption(SENTINELS, end=1)


def test_the_numbers_are_those_of_t5():
    """568 tokens make a source of 512 and a target of 114, as in the paper's code."""
    assert CORRUPTION.lengths(512) == (568, 114)
    assert span_counts(568) == (85, 28)
    pair = CORRUPTION.corrupt(np.arange(2, 570), 0)
    assert (len(pair.source), len(pair.target)) == (512, 114)


@pytest.mark.parametrize("length", [2, 3, 7, 64, 300, 568])
def test_source_and_target_together_are_the_text(length):
    text = np.arange(2, 2 + length)
    taken, spans = span_counts(length)
    for number in range(5):
        pair = CORRUPTION.corrupt(text, number)
        assert (len(pair.source), len(pair.target)) == corrupted_lengths(length)
        assert pair.source[-1] == pair.target[-1] == 1
        assert np.isin(pair.source, SENTINELS).sum() == np.isin(pair.target, SENTINELS).sum() == spans
        assert list(pair.target[np.isin(pair.target, SENTINELS)]) == list(SENTINELS[:spans])
        np.testing.assert_array_equal(restored(pair), text)
        assert len(pair.target) - spans - 1 == taken


def restored(pair) -> np.ndarray:
    """The text, each sentinel of the source replaced by what stands behind it in the target."""
    starts = np.flatnonzero(np.isin(pair.target, SENTINELS))
    spans = dict(zip(pair.target[starts], np.split(pair.target[:-1], starts)[1:], strict=True))
    return np.concatenate([spans[token][1:] if token in spans else [token] for token in pair.source[:-1]])


def test_spans_have_a_mean_of_three_and_fall_everywhere():
    pairs = [CORRUPTION.corrupt(np.arange(2, 570), number) for number in range(300)]
    taken = np.concatenate([pair.target[(pair.target > 1) & (pair.target < 570)] for pair in pairs])
    often = np.bincount(taken - 2, minlength=568) / len(pairs)
    assert abs(often.mean() - 85 / 568) < 1e-9
    assert often[1:].min() > 0.05  # the very first is always kept
    assert often[0] == 0


def test_the_seed_and_the_number_decide():
    text = np.arange(2, 100)
    assert np.array_equal(CORRUPTION.corrupt(text, 3).source, CORRUPTION.corrupt(text, 3).source)
    assert not np.array_equal(CORRUPTION.corrupt(text, 3).source, CORRUPTION.corrupt(text, 4).source)
    other = Corruption(SENTINELS, end=1, seed=1)
    assert not np.array_equal(CORRUPTION.corrupt(text, 3).source, other.corrupt(text, 3).source)


@pytest.mark.parametrize("length", [3, 17, 100, 512])
def test_a_piece_is_the_longest_whose_source_fits(length):
    longest, _ = Corruption(tuple(range(200)), 1).lengths(length)
    assert corrupted_lengths(longest)[0] <= length < corrupted_lengths(longest + 1)[0]


def rows_of(tmp_path, records, stage, length=32, tokenizer=None, seed=0):
    file = tmp_path / "data.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    tokenizer = tokenizer or tiny_tokenizer(sentinels=20)
    return open_data(str(file), stage, tokenizer, tmp_path, 64, length, tmp_path / "cache", start_token=0, seed=seed)


def test_corrupted_rows_hold_every_token_of_the_text_once(tmp_path):
    texts = [{"text": "abc def" * (1 + i)} for i in range(9)]
    rows = rows_of(tmp_path, texts, "pretrain")
    (part,) = rows.parts
    assert len(rows) > 5
    length, target = part.corruption.lengths(32)
    for number in range(len(rows) - 1):  # the last piece is shorter
        row = rows[number]
        assert row["source_tokens"].shape == (32,)
        assert row["tokens"].shape == row["targets"].shape == (target,)
        assert row["weights"].sum() == corrupted_lengths(length)[1]
        assert row["tokens"][0] == 0
        np.testing.assert_array_equal(row["tokens"][1:], row["targets"][:-1])
    plain = sum(int(((row["source_tokens"] > 1) & (row["source_tokens"] < 42)).sum()) for row in rows_list(rows))
    plain += sum(int(((row["targets"] > 1) & (row["targets"] < 42)).sum()) for row in rows_list(rows))
    assert plain == sum(len(text["text"]) for text in texts)
    assert rows_of(tmp_path, texts, "pretrain", seed=1).digest != rows.digest


def rows_list(rows):
    return [rows[number] for number in range(len(rows))]


def test_pairs_are_packed_whole_and_in_order(tmp_path):
    texts = [("ab" * (1 + i % 5), "cd" * (1 + i % 3)) for i in range(20)]
    records = [{"input": source, "target": target} for source, target in texts]
    rows = rows_of(tmp_path, records, "pairs", length=16)
    (part,) = rows.parts
    assert isinstance(part, PairRows)
    tokenizer, found = tiny_tokenizer(), []
    for row in rows_list(rows):
        for number in range(1, row["segment_ids"].max() + 1):
            source = row["source_tokens"][row["source_segment_ids"] == number]
            inside = row["segment_ids"] == number
            target, read = row["targets"][inside], row["tokens"][inside]
            assert source[-1] == target[-1] == tokenizer.eos_token_id
            np.testing.assert_array_equal(read, [0, *target[:-1]])
            np.testing.assert_array_equal(row["positions"][inside], np.arange(len(target)))
            found.append(tuple("".join(tokenizer.convert_ids_to_tokens(x[:-1])) for x in (source, target)))
        np.testing.assert_array_equal(row["weights"], row["segment_ids"] > 0)
    assert found == texts
    assert len(rows) < 20
    batches = make_loader(rows, 3, 0)
    assert next(batches)["source_tokens"].shape == (3, 16)
    batches.close()


def test_long_texts_are_cut_before_their_last_token_and_counted(tmp_path):
    rows = rows_of(tmp_path, [{"input": "a" * 40, "target": "b"}, {"input": "a", "target": " "}], "pairs", length=16)
    (part,) = rows.parts
    assert (part.store.truncated, part.store.dropped) == (1, 1)
    assert list(rows[0]["source_tokens"]) == [2] * 15 + [0]  # 0 is the end of the text here


@pytest.mark.parametrize(
    ("records", "stage", "message"),
    [
        ([{"text": "abc"}], "pairs", 'data.jsonl:1: expected "input" and "target", both strings; there is \'text\''),
        ([{"input": "abc", "target": 3}], "pairs", 'expected "input" and "target", both strings'),
        ([{"input": "abc"}], "pretrain", 'no "text" in the record'),
    ],
)
def test_records_of_another_form_are_named(tmp_path, records, stage, message):
    with pytest.raises(InputError, match=message):
        rows_of(tmp_path, records, stage)


def test_a_tokenizer_without_sentinels_or_with_too_few_is_refused():
    with pytest.raises(InputError, match="no <extra_id_0>.*--stage pairs"):
        find_corruption(tiny_tokenizer())
    with pytest.raises(InputError, match="takes out 28 spans, but the tokenizer has 20 sentinels"):
        find_corruption(tiny_tokenizer(sentinels=20)).lengths(512)
    with pytest.raises(InputError, match="at least 3 tokens"):
        CORRUPTION.lengths(2)
