"""Low-rank adapters: what they compute, what is trained of them, and what the export makes of them."""

import json
import shutil
from contextlib import contextmanager
from itertools import count

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.reader import open_checkpoint, read
from lesa_jax.evaluation.run import evaluate
from lesa_jax.evaluation.settings import EvaluateSettings
from lesa_jax.models.config import read_config
from lesa_jax.models.decoder import forward
from lesa_jax.models.load import load_model
from lesa_jax.models.parts import LORA_DOWN, LORA_UP, is_adapter
from lesa_jax.models.shapes import layer_tensors, model_tensors
from lesa_jax.training import loop
from lesa_jax.training.lora import added_up, equal_rank, with_adapters
from lesa_jax.training.run import train
from tests.support.growth import TOKENS
from tests.support.settings import train_settings
from tests.support.tiny import tiny, torch_logits
from tests.support.training import rows

RANK = 3


def adapters_of(family: str) -> dict[str, np.ndarray]:
    """Random ones, also where fresh ones are zero, by the names of single layers' tensors."""
    rng = np.random.default_rng(0)
    config = with_adapters(read_config(open_checkpoint(tiny(family)).config), f"lora:{RANK}")
    names = {name: tensor for name, tensor in model_tensors(config).items() if is_adapter(name)}
    return {name: rng.standard_normal(tensor.shape, np.float32) * 0.1 for name, tensor in names.items()}


@pytest.mark.parametrize("family", ["llama", "gpt2", "phi3", "gemma2", "falcon"])
def test_a_model_with_adapters_computes_what_it_does_with_them_added_up(family):
    """Fused matrices and those that lie the other way among them."""
    (params, config), checkpoint = load_model(tiny(family)), open_checkpoint(tiny(family))
    adapters, layers = adapters_of(family), f"{config.names.layers}."

    def with_stacks(names):
        """The model with tensors of all layers in the place of, or beside, its own."""
        found = flatten_dict(params, sep=".")
        stacks: dict[str, list[np.ndarray]] = {}
        for name, array in names:
            stacks.setdefault(name.removeprefix(layers).partition(".")[2], []).append(array)
        found |= {f"{layers}{name}": jnp.asarray(np.stack(arrays)) for name, arrays in stacks.items()}
        return unflatten_dict(found, sep=".")

    beside, added = with_stacks(adapters.items()), with_stacks(added_up(adapters.items(), checkpoint, config))
    with jax.default_matmul_precision("highest"):
        ours, theirs, before = (np.asarray(forward(p, jnp.array(TOKENS), config)) for p in (beside, added, params))
    np.testing.assert_allclose(ours, theirs, atol=2e-5)
    assert np.abs(ours - before).max() > 1e-2


def test_what_is_trained_is_of_low_rank_and_the_export_has_it_added_up(place):
    report = train(train_settings(place, "lora", model=str(place / "base"), train=f"lora:{RANK}"))
    before, after = open_checkpoint(place / "base"), open_checkpoint(place / "lora" / "final")
    assert before.entries.keys() == after.entries.keys()
    matrices = 0
    for name in before.entries:
        change = read(after, name) - read(before, name)
        if name.startswith("model.layers.") and "_proj" in name:
            values = np.linalg.svd(change, compute_uv=False)
            assert values[RANK - 1] > 1e-5
            assert values[RANK] < 1e-2 * values[RANK - 1]
            matrices += sum(change.shape)
        else:
            assert not change.any(), name
    assert report.trained == RANK * matrices
    log = rows(place / "lora")
    assert log[6]["loss"] < log[1]["loss"]
    for folder, loss in ((place / "base", log[0]["eval_loss"]), (place / "lora" / "final", log[6]["eval_loss"])):
        measured = evaluate(EvaluateSettings(str(folder), text=place / "eval.txt", sequence_length=32))
        assert measured["nll"] == pytest.approx(loss, rel=1e-5)
    params, config = load_model(place / "lora" / "final")
    ours = np.asarray(forward(params, jnp.array(TOKENS), config) @ params["model"]["embed_tokens"]["weight"].T)
    np.testing.assert_allclose(ours, torch_logits(place / "lora" / "final", TOKENS).numpy(), atol=1e-4)


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_same_model(place, monkeypatch):
    """Its moving average, too, which is what is exported."""
    settings = {"model": str(place / "base"), "train": f"lora:{RANK}", "ema": 0.5}
    train(train_settings(place, "whole", **settings))

    @contextmanager
    def stop_signal():
        asked = count()
        yield lambda: next(asked) == 3

    monkeypatch.setattr(loop, "stop_signal", stop_signal)
    assert train(train_settings(place, "parts", **settings)).stopped
    monkeypatch.undo()
    train(train_settings(place, "parts", **settings))
    whole, parts = (place / name / "final" / "model.safetensors" for name in ("whole", "parts"))
    assert whole.read_bytes() == parts.read_bytes()
    for name in ("whole", "parts"):
        shutil.rmtree(place / name)


@pytest.mark.parametrize(
    ("family", "wanted", "message"),
    [
        ("llama", "lora:0", "the rank must be a whole number from 1 to 99999"),
        ("llama", "lora:x", "the rank must be a whole number"),
        ("llama", "lora:", "the rank must be a whole number"),
        ("mixtral", "lora:4", "mixtral is a mixture of experts, which has no adapters here"),
        ("t5", "lora:4", "t5 is an encoder-decoder, which has no adapters here"),
    ],
)
def test_what_has_no_adapters_is_refused(family, wanted, message):
    with pytest.raises(InputError, match=message):
        with_adapters(read_config(open_checkpoint(tiny(family)).config), wanted)


def test_equal_rank_trains_as_many_numbers_as_new_layers_have():
    config = read_config(json.loads((tiny("llama") / "config.json").read_text()))
    rank = equal_rank(config, 3)
    sizes = {name: np.prod(tensor.shape) for name, tensor in layer_tensors(config, 0).items()}
    matrices = sum(size for name, size in sizes.items() if "norm" not in name)
    adapted = layer_tensors(with_adapters(config, f"lora:{rank}"), 0)
    halves = sum(np.prod(tensor.shape) for name, tensor in adapted.items() if name.endswith((LORA_DOWN, LORA_UP)))
    assert config.num_layers * halves == pytest.approx(3 * matrices, rel=0.5 / rank)
    assert equal_rank(config, 0) == 1
