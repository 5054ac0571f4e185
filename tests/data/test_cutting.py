"""Pieces of a text have the tokens of the whole, whatever the tokenizer puts in front of a text and wherever it splits.

Tokenizers are of every kind in use, trained on the demo's text; texts are of the kinds that are hard to cut.
"""

import random
from functools import cache

import pytest
from tokenizers import Regex, Tokenizer, models, trainers
from tokenizers import normalizers as norm
from tokenizers import pre_tokenizers as pre

from lesa_jax import demo
from lesa_jax.data.cutting import Cutter

SPECIAL = ["<s>", "</s>", "<unk>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


def trained(model, trainer, pre_tokenizer=None, normalizer=None, **options) -> Tokenizer:
    tokenizer = Tokenizer(model)
    if pre_tokenizer:
        tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer:
        tokenizer.normalizer = normalizer
    options = {"vocab_size": 900, "special_tokens": SPECIAL, "show_progress": False} | options
    tokenizer.train_from_iterator(demo.evaluation_text()[:40000].split("\n"), trainer(**options))
    return tokenizer


def byte_level(pre_tokenizer) -> Tokenizer:
    alphabet = pre.ByteLevel.alphabet()
    return trained(models.BPE(), trainers.BpeTrainer, pre_tokenizer, initial_alphabet=alphabet)


def bpe(pre_tokenizer=None, normalizer=None, byte_fallback=False, **options) -> Tokenizer:
    model = models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=byte_fallback)
    return trained(model, trainers.BpeTrainer, pre_tokenizer, normalizer, **options)


def unigram(pre_tokenizer, normalizer=None) -> Tokenizer:
    return trained(models.Unigram(), trainers.UnigramTrainer, pre_tokenizer, normalizer, unk_token="<unk>")


def metaspace(scheme: str, split: bool = True) -> pre.PreTokenizer:
    return pre.Metaspace(prepend_scheme=scheme, split=split)


def unsplit(tokenizer: Tokenizer, pre_tokenizer, normalizer=None) -> Tokenizer:
    """As Llama 2 and Mistral have it: words are those of training, but nothing splits a text into words."""
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer:
        tokenizer.normalizer = normalizer
    return tokenizer


PREPEND = norm.Sequence([norm.Prepend("▁"), norm.Replace(" ", "▁")])
KINDS = {
    "byte-level": lambda: byte_level(pre.ByteLevel(add_prefix_space=False)),
    "byte-level with a prefix space": lambda: byte_level(pre.ByteLevel(add_prefix_space=True)),
    "llama 3": lambda: byte_level(
        pre.Sequence([pre.Split(Regex(LLAMA3), "isolated"), pre.ByteLevel(add_prefix_space=False, use_regex=False)])
    ),
    **{f"metaspace {scheme}": lambda s=scheme: bpe(metaspace(s)) for scheme in ("always", "first", "never")},
    **{f"unigram {scheme}": lambda s=scheme: unigram(metaspace(s)) for scheme in ("always", "first", "never")},
    **{
        f"metaspace {scheme} unsplit": lambda s=scheme: unsplit(bpe(metaspace(s)), metaspace(s, split=False))
        for scheme in ("always", "first")
    },
    "llama 2": lambda: unsplit(
        bpe(metaspace("always"), byte_fallback=True, vocab_size=1200, special_tokens=[*SPECIAL, *BYTES]),
        pre.Sequence([]),
        PREPEND,
    ),
    "wordpiece": lambda: trained(
        models.WordPiece(unk_token="<unk>"), trainers.WordPieceTrainer, pre.BertPreTokenizer(), norm.BertNormalizer()
    ),
    "whitespace": lambda: bpe(pre.Whitespace(), norm.NFKC()),
    "t5": lambda: unigram(
        pre.Sequence([pre.WhitespaceSplit(), metaspace("always")]),
        norm.Sequence([norm.NFKC(), norm.Replace(Regex(" {2,}"), " ")]),
    ),
    "words together": lambda: bpe(None, norm.Replace(" ", "▁"), max_token_length=30),
}


@cache
def kind(name: str) -> Tokenizer:
    return KINDS[name]()


def texts(rng: random.Random, length: int) -> dict[str, str]:
    def of(parts, count=length) -> str:
        return "".join(rng.choice(parts) for _ in range(count))

    prose, letters = demo.evaluation_text(), "abcdefghijklmnopqrstuvwxyz"
    start = rng.randrange(len(prose) - length)
    special = ["word", " ", "  ", "\n", "\t", "\n\n", " . ", "1", "<s>", "</s> ", " <unk>"]
    return {
        "prose": prose[start : start + length],
        "unicode": of([*"aé ü机器人\n.,。1٣ ", "😀", "👨‍👩‍👧", "e\u0301"]),
        "no spaces": of(letters),
        "chinese": of("的一是不了人我在有他这为之大来以个中上们。"),
        "newlines": "\n" * length,
        "spaces": "a" + " " * length + "b",
        "one letter": "x " + "a" * length,
        "a line": "x " + "=" * length + " word",
        "digits": of("0123456789"),
        "long words": " ".join(of("abcde", rng.randrange(1, length // 4)) for _ in range(12)),
        "white space and special tokens": of(special, length // 3),
        "addresses": of(["http://", "a.b/", "%20", "&x=", "_", "-", "99", "Ab"], length // 3),
    }


def check(tokenizer: Tokenizer, cutter: Cutter, text: str, rng: random.Random) -> int:
    """Compares the tokens of the pieces with those of the whole; the number of pieces."""
    step = rng.randrange(1, 700)
    pieces = list(cutter.pieces(text[i : i + step] for i in range(0, len(text), step)))
    encoded = [tokenizer.encode(piece.text, add_special_tokens=False).ids[piece.drop :] for piece in pieces]
    assert [token for ids in encoded for token in ids] == tokenizer.encode(text, add_special_tokens=False).ids
    assert [piece.starts for piece in pieces] == [True] + [False] * (len(pieces) - 1)
    assert [piece.ends for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    return len(pieces)


@pytest.mark.parametrize("name", KINDS)
def test_pieces_have_the_tokens_of_the_whole(name):
    rng = random.Random(name)
    cutter = Cutter(kind(name), limit=1000, reach=128)
    counts = {text: check(kind(name), cutter, content, rng) for text, content in texts(rng, 5000).items()}
    assert counts["prose"] >= 4
    assert counts["addresses"] >= 4


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", KINDS)
def test_pieces_of_long_texts_have_the_tokens_of_the_whole(name, seed):
    rng = random.Random(f"{name} {seed}")
    for content in texts(rng, 40000).values():
        check(kind(name), Cutter(kind(name)), content, rng)


def test_a_stray_space_is_dropped_with_the_text_before_it():
    """The tokens of pieces by themselves would be others: this tokenizer puts a space in front of each."""
    tokenizer, text = kind("llama 2"), "words of a text\nand\nothers\n" * 100
    pieces = list(Cutter(tokenizer, limit=300, reach=64).pieces([text]))
    assert len(pieces) > 5
    assert all(piece.drop for piece in pieces[1:])
    alone = text[: len(pieces[0].text)], text[len(pieces[0].text) :]
    ids = [token for part in alone for token in tokenizer.encode(part, add_special_tokens=False).ids]
    assert ids != tokenizer.encode(text, add_special_tokens=False).ids


def test_pieces_are_bounded_where_no_token_ends():
    """A word of any length is one unknown token for WordPiece, and is cut in the end."""
    cutter = Cutter(kind("wordpiece"), limit=1000, reach=128, longest=8000)
    pieces = list(cutter.pieces("a" * 100 for _ in range(500)))
    assert max(len(piece.text) for piece in pieces) <= 8000 + 2 * 128
    assert sum(len(piece.text) for piece in pieces) == 50_000 + 128 * (len(pieces) - 1)


def test_a_short_text_is_one_piece():
    [piece] = Cutter(kind("llama 2")).pieces(["the ", "", "text"])
    assert (piece.text, piece.drop, piece.starts, piece.ends) == ("the text", 0, True, True)
    [piece] = Cutter(kind("llama 2")).pieces([])
    assert piece.text == ""
