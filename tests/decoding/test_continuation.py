"""Texts gone on with: as transformers does, alone as in a batch, up to what ends them."""

import numpy as np
import pytest
import torch
import transformers as hf

from lesa_jax.base.errors import InputError
from lesa_jax.decoding.continuation import CHUNK, continuations
from lesa_jax.decoding.sampling import Sampling
from lesa_jax.models.load import load_model
from tests.support.tiny import tiny

RNG = np.random.default_rng(3)
TEXTS = [RNG.integers(3, 64, length).tolist() for length in (4, 17, 1)]


def last(steps):
    *_, written = steps
    return written


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_the_likeliest_tokens_are_those_of_transformers(family):
    params, config = load_model(tiny(family))
    model = hf.AutoModelForCausalLM.from_pretrained(tiny(family))
    model.generation_config = hf.GenerationConfig(do_sample=False, max_new_tokens=20, eos_token_id=None, pad_token_id=0)
    ours = last(continuations(params, config, TEXTS, 20))
    for text, written in zip(TEXTS, ours, strict=True):
        theirs = model.generate(torch.tensor([text]), attention_mask=torch.ones(1, len(text)))  # pyright: ignore
        assert written == theirs[0, len(text) :].tolist()


def test_a_text_is_gone_on_with_alike_whatever_else_is_there():
    params, config = load_model(tiny("llama"))
    warm = Sampling(1.0, 0.9)
    together = last(continuations(params, config, TEXTS, 40, warm, seed=5))
    assert last(continuations(params, config, TEXTS[:1], 40, warm, seed=5)) == together[:1]
    assert last(continuations(params, config, TEXTS, 40, warm, seed=6)) != together
    assert together[0][:10] != together[1][:10]
    assert all(len(written) == 40 for written in together)


def test_what_ends_a_text_is_left_out_and_the_others_go_on():
    params, config = load_model(tiny("llama"))
    free = last(continuations(params, config, TEXTS, 40, Sampling(1.0)))
    end = free[0][5]
    assert end not in free[0][:5]
    written = last(continuations(params, config, TEXTS, 40, Sampling(1.0), ends={end}))
    assert written[0] == free[0][:5]
    for text in (1, 2):
        expected = free[text][: free[text].index(end)] if end in free[text] else free[text]
        assert written[text] == expected


def test_it_stops_when_no_text_needs_more():
    params, config = load_model(tiny("llama"))
    asked = []

    def finished(text, tokens):
        asked.append((text, len(tokens)))
        return len(tokens) >= 2 * CHUNK

    written = last(continuations(params, config, TEXTS[:2], 10 * CHUNK, finished=finished))
    assert [len(tokens) for tokens in written] == [2 * CHUNK, 2 * CHUNK]
    assert asked == [(0, CHUNK), (1, CHUNK), (0, 2 * CHUNK), (1, 2 * CHUNK)]


def test_beyond_a_table_of_positions_nothing_is_written():
    params, config = load_model(tiny("gpt2"))
    positions = config.max_position_embeddings
    with pytest.raises(InputError, match=f"4 tokens and {positions - 3} to be written, but the model has {positions}"):
        next(continuations(params, config, TEXTS[:1], positions - 3))
    assert len(last(continuations(params, config, TEXTS[:1], positions - 4))[0]) == positions - 4
