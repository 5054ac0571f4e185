"""The training command from fresh weights, and on conversations."""

import json
import shutil

import numpy as np
import pytest

from lesa_jax.checkpoint.reader import open_checkpoint, read
from lesa_jax.training.run import train
from tests.support.settings import train_settings
from tests.support.training import losses, rows


@pytest.mark.slow
@pytest.mark.parametrize(("init", "highest"), [("random", 1.0), ("norm-scaling", 0.5)])
def test_random_weights_need_no_checkpoint(place, init, highest):
    folder = place / init
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(place / "base" / name, folder / name)
    changes = {"model": None, "init": init, "config": folder / "config.json", "steps": 2}
    assert train(train_settings(place, f"{init}-run", **changes)).frozen == 0
    final = open_checkpoint(place / f"{init}-run" / "final")
    assert final.config["num_hidden_layers"] == 4
    norm = read(final, "model.layers.3.input_layernorm.weight")
    assert norm.astype(np.float32).mean() == pytest.approx(highest, abs=0.05)  # after two steps
    assert rows(place / f"{init}-run")[0]["eval_loss"] == pytest.approx(np.log(4096), rel=0.05)


@pytest.mark.slow
def test_all_and_sft_go_through_the_same_step(place):
    chats = place / "chat.jsonl"
    record = {"instruction": "Say the number.", "output": "It is seven."}
    chats.write_text("".join(json.dumps(record) + "\n" for _ in range(40)))
    train(train_settings(place, "sft", data=str(chats), stage="sft", train="all", steps=3, sequence_length=128))
    assert losses(place / "sft")[-1] < losses(place / "sft")[0]
