"""The absence of layers: against torch with hooks, and where it makes no difference."""

import numpy as np
import pytest
import torch
import transformers as hf

from lesa_jax.analysis import layers
from lesa_jax.analysis.effects import FIRST, LAST, SEED
from lesa_jax.analysis.measure import measure
from lesa_jax.checkpoint.reader import open_checkpoint
from lesa_jax.evaluation import bypass
from lesa_jax.models.config import read_model
from lesa_jax.models.streams import read_layer
from tests.support.growth import TOKENS, grow
from tests.support.tiny import tiny

ROWS = np.array(TOKENS, np.int32)


def nothing(done: int) -> None:
    """Nobody looks at the progress."""


def measured(folder):
    checkpoint = open_checkpoint(folder)
    return measure(checkpoint, read_model(checkpoint), ROWS, nothing)


def run(model, skipped=None, mask=None):
    """Streams before each layer and behind the last, and probabilities; one layer is passed by at some tokens."""
    streams, handles = [], []

    def passed_by(module, inputs, output):
        after = output[0] if isinstance(output, tuple) else output
        new = torch.where(mask[..., None], inputs[0], after)
        return (new, *output[1:]) if isinstance(output, tuple) else new

    for layer in model.model.layers:
        handles.append(layer.register_forward_pre_hook(lambda module, inputs: streams.append(inputs[0])))
    handles.append(model.model.norm.register_forward_pre_hook(lambda module, inputs: streams.append(inputs[0])))
    if skipped is not None:
        handles.append(model.model.layers[skipped].register_forward_hook(passed_by))
    with torch.no_grad():
        probabilities = model(torch.tensor(TOKENS)).logits.softmax(-1)
    for handle in handles:
        handle.remove()
    return streams, probabilities


def test_effects_are_those_of_torch():
    model = hf.AutoModelForCausalLM.from_pretrained(tiny("llama"), dtype=torch.float32).double()
    length, found = ROWS.shape[1], measured(tiny("llama")).effects
    starts = np.random.default_rng(SEED).integers(FIRST, length - LAST, len(ROWS))
    later = torch.tensor(np.arange(length) >= starts[:, None])
    earlier = ~later & (torch.arange(length) > 0)
    whole, expected = run(model)
    for skipped in range(6):
        streams, probabilities = run(model, skipped, earlier)
        distance = (probabilities - expected).norm(dim=-1)[later].max().item()
        assert found.output[skipped] == pytest.approx(distance, rel=1e-4, abs=1e-7)
        for layer in range(6):
            ours, theirs = (s[layer + 1] - s[layer] for s in (whole, streams))
            change = ((theirs - ours).norm(dim=-1) / ours.norm(dim=-1).clamp(min=1e-6))[later].max().item()
            value = found.layers[skipped, layer]
            assert value == pytest.approx(change, rel=1e-4, abs=1e-6), (skipped, layer)
            assert value > 0 if layer > skipped else value == 0


def test_a_silent_layer_is_not_missed(tmp_path, monkeypatch):
    """More layers than are followed at a time: groups change nothing, and every layer is read in the first one."""
    grow(tiny("llama"), tmp_path / "grown", "identity", layers=11)
    whole = measured(tmp_path / "grown")
    monkeypatch.setattr(bypass, "STREAM_BYTES", 8 * ROWS.size * 32 * 4)  # of four layers, before and behind each
    found = measured(tmp_path / "grown")
    assert found.layers == whole.layers
    for ours, theirs in ((found.importance, whole.importance), *zip(found.effects, whole.effects, strict=True)):
        np.testing.assert_array_equal(ours, theirs)
    effects, silent = found.effects, [layer for layer in range(11) if found.importance[layer] == 0]
    assert silent == [1, 3, 5, 7, 9]
    assert not effects.layers[silent].any()
    assert (effects.output[silent] < 1e-7).all()
    others = [layer for layer in range(11) if layer not in silent]
    assert found.importance[others].all()
    assert effects.layers[others[0]].any()


def test_layers_are_read_no_more_often_than_memory_makes_necessary(monkeypatch):
    """Six layers, of which four are followed at a time: the walk, two groups of effects, two of importance."""
    asked = []
    for module in (bypass, layers):
        monkeypatch.setattr(module, "read_layer", lambda *given: asked.append(given[2]) or read_layer(*given))
    measured(tiny("llama"))
    once = list(range(6))
    assert asked == [*once, 5, *once, *once]  # the last one for the lens
    asked.clear()
    monkeypatch.setattr(bypass, "STREAM_BYTES", 8 * ROWS.size * 32 * 4)
    measured(tiny("llama"))
    assert asked == [*once, 5, *once, 4, 5, *once, 4, 5]
