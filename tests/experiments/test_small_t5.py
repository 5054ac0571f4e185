"""experiments/ablation/small_t5.py in seconds: a model of three layers, trained for a few steps."""

import itertools
import json
import sys
from pathlib import Path

import pytest

from lesa_jax.data.corruption import find_corruption
from lesa_jax.demo import MODEL_DIRECTORY, evaluation_text

# experiments/ is no package: its scripts are run, and import one another by name.
sys.path.insert(0, str(Path(__file__).parents[2] / "experiments" / "ablation"))

import small_t5

TOKENIZER = MODEL_DIRECTORY / "tokenizer.json"


def test_a_tokenizer_is_cut_to_its_first_merges_and_has_sentinels_at_its_top():
    whole, short = small_t5.shorten(TOKENIZER, 4096), small_t5.shorten(TOKENIZER, 512)
    text = "def forward(self, x):\n    return x + 1\n"
    assert max(short.get_vocab().values()) == 511
    assert len(short(text)["input_ids"]) > len(whole(text)["input_ids"])
    assert short.decode(short(text)["input_ids"]) == text
    corruption = find_corruption(short)
    assert corruption.sentinels == tuple(range(511, 511 - small_t5.SENTINELS, -1))
    assert short("a<extra_id_3>b")["input_ids"][1] == 508
    corruption.lengths(128)


def test_pairs_lack_some_words_and_have_others_behind_the_next():
    words = [f"w{number}" for number in range(10 * small_t5.WORDS + 5)]
    made = [json.loads(line) for line in small_t5.pairs(" ".join(words))]
    assert " ".join(pair["target"] for pair in made).split() == words[: 10 * small_t5.WORDS]
    lost = swapped = 0
    for pair in made:
        source, target = pair["input"].split(), pair["target"].split()
        assert set(source) <= set(target)
        lost += len(target) - len(source)
        places = [target.index(word) for word in source]
        swapped += sum(later < earlier for earlier, later in itertools.pairwise(places))
    assert 10 < lost < 60
    assert 10 < swapped < 60


@pytest.mark.slow
@pytest.mark.parametrize("task", ["spans", "restore"])
def test_it_trains_looks_and_grows_and_goes_on_where_it_was(tmp_path, task):
    (tmp_path / "data.txt").write_text(evaluation_text()[:30_000])
    (tmp_path / "text.txt").write_text(evaluation_text()[30_000:34_000])
    settings = small_t5.Settings(
        data=tmp_path / "data.txt",
        text=tmp_path / "text.txt",
        work=tmp_path / "work",
        task=task,
        layers=4,
        width=32,
        vocabulary=400,
        steps=6,
        batch_size=4,
        sequence_length=64,
        methods="llama_pro,lesa,average",
        results=tmp_path / "results",
    )
    small_t5.main(settings)
    page = tmp_path / "results" / ("small_t5.md" if task == "spans" else "small_t5_restore.md")
    text = page.read_text()
    rows = {line.split(" | ")[0]: line for line in text.splitlines() if line.startswith("| ")}
    base = (line for line in text.splitlines() if "before growth it is" in line)
    perplexity = next(base).split()[-1].rstrip(":")
    assert rows["| llama_pro"] == f"| llama_pro | {perplexity} | {perplexity} | {perplexity} |"
    assert sum(line.startswith("| decoder | ") for line in text.splitlines()) == 10
    assert sum(line.startswith("| encoder | ") for line in text.splitlines()) == 6
    measured = (tmp_path / "work" / "perplexities.json").stat().st_mtime_ns
    small_t5.main(settings)
    assert (tmp_path / "work" / "perplexities.json").stat().st_mtime_ns == measured
    assert page.read_text() == text
