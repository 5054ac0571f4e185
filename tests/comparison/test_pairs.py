"""Methods are compared on an encoder-decoder by the perplexity of its targets, before and after training."""

import json
import shutil

import pytest

from lesa_jax.comparison.run import compare
from lesa_jax.comparison.settings import CompareSettings
from lesa_jax.evaluation.run import EvaluateSettings, evaluate
from tests.support.settings import nest
from tests.support.tiny import tiny
from tests.support.tokenizers import tiny_tokenizer


@pytest.mark.slow
def test_a_t5_is_compared_by_its_targets_and_trained_in_one_stack(tmp_path):
    model, text, data = tmp_path / "t5", tmp_path / "text.txt", tmp_path / "data.jsonl"
    shutil.copytree(tiny("t5"), model)
    tiny_tokenizer(sentinels=20).save_pretrained(model)
    text.write_text("abc def ghi jkl " * 30)
    data.write_text("".join(json.dumps({"text": f"abc def {i} ghi " * 4}) + "\n" for i in range(50)))
    settings = nest(
        CompareSettings,
        model=str(model),
        text=text,
        output=tmp_path / "out",
        methods="lesa,llama_pro,average,random,msg",
        stack="encoder",
        sequence_length=24,
        train_data=str(data),
        train_tokens="400",
        eval_every="200",
        batch_size=4,
        learning_rate=1e-3,
    )
    comparison = compare(settings)
    rows = {outcome.method: outcome for outcome in comparison.outcomes}
    assert not [outcome.error for outcome in rows.values() if outcome.error]
    base = evaluate(EvaluateSettings(str(model), text=text, sequence_length=24))["perplexity"]
    assert rows["base"].initial == rows["llama_pro"].initial == (base,)
    assert rows["lesa"].layers == 6 + 5
    assert all(layer < 6 for layer in rows["lesa"].new_layers)
    for outcome in rows.values():
        assert len(outcome.curves[0]) >= 2, outcome.method
