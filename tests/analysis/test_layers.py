"""What layers do to the residual stream, against torch on transformers' own hidden states."""

import numpy as np
import pytest
import torch
import transformers as hf

from lesa_jax.analysis.effective import by_divergence, by_last_divergence, by_overlap
from lesa_jax.analysis.measure import measure
from lesa_jax.checkpoint.reader import open_checkpoint
from lesa_jax.models.config import read_model
from tests.support.growth import TOKENS, grow
from tests.support.tiny import tiny

ROWS = np.array(TOKENS, np.int32)


def nothing(done: int) -> None:
    """Nobody looks at the progress."""


def measured(folder):
    checkpoint = open_checkpoint(folder)
    return measure(checkpoint, read_model(checkpoint), ROWS, nothing).layers


def reference(folder) -> list[dict[str, float]]:
    """By torch, in float64 from the streams on."""
    model = hf.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).double()
    layers, attended, streams = model.model.layers, [], []
    for layer in layers:
        layer.register_forward_pre_hook(lambda module, inputs: streams.append(inputs[0]))
        layer.post_attention_layernorm.register_forward_pre_hook(lambda module, inputs: attended.append(inputs[0]))
    model.model.norm.register_forward_pre_hook(lambda module, inputs: streams.append(inputs[0]))
    tokens = torch.tensor(TOKENS)
    with torch.no_grad():
        final = torch.log_softmax(model(tokens).logits, -1)
        seen = tuple(streams), tuple(attended)  # what follows calls the hooks again
        return [layer_reference(model, tokens, final, *seen, number) for number in range(len(layers))]


def layer_reference(model, tokens, final, streams, attended, number):
    x, a, y, first, last = streams[number], attended[number], streams[number + 1], streams[0], streams[-1]
    cos = torch.nn.functional.cosine_similarity

    def angle(u, v):
        return torch.arccos(cos(u, v, dim=-1).clamp(-1, 1)).mean().item()

    lens = torch.log_softmax(model.lm_head(model.model.norm(x)), -1)
    ours, theirs = (logits.topk(5).indices.view(-1, 5).tolist() for logits in (lens, final))
    overlap = np.mean([len({*here} & {*there}) / 5 for here, there in zip(ours, theirs, strict=True)])
    positions = torch.arange(tokens.shape[1])[None]
    rotations = model.model.rotary_emb(x, positions)
    mask = torch.full((tokens.shape[1],) * 2, float("-inf"), dtype=x.dtype).triu(1)[None, None]
    short = model.model.layers[-1](x, attention_mask=mask, position_embeddings=rotations)
    short = short[0] if isinstance(short, tuple) else short
    logits = model.lm_head(model.model.norm(short))[:, :-1]
    way = last - first
    values = {
        "angle": angle(x, y),
        "block_influence": 1 - cos(x, y, dim=-1).mean().item(),
        "norm": x.norm(dim=-1).mean().item(),
        "attention": ((a - x).norm(dim=-1) / x.norm(dim=-1)).mean().item(),
        "feed_forward": ((y - a).norm(dim=-1) / a.norm(dim=-1)).mean().item(),
        "contribution": ((y - x).norm(dim=-1) / x.norm(dim=-1)).mean().item(),
        "attention_cosine": cos(a - x, x, dim=-1).mean().item(),
        "feed_forward_cosine": cos(y - a, a, dim=-1).mean().item(),
        "layer_cosine": cos(y - x, x, dim=-1).mean().item(),
        "angle_to_end": angle(x, last),
        "projection": (((x - first) * way).sum(-1) / (way * way).sum(-1)).mean().item(),
        "lens_kl": (lens.exp() * (lens - final)).sum(-1).mean().item(),
        "lens_overlap": overlap,
        "shortcut_loss": torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).item(),
    }
    if number + 2 < len(streams):
        values["update_angle"] = angle(y - x, streams[number + 2] - y)
    return values


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_all_measures_are_those_of_torch(family):
    found, expected = measured(tiny(family)), reference(tiny(family))
    assert len(found) == len(expected) == 6
    for layer, values in zip(found, expected, strict=True):
        for name, value in values.items():
            assert getattr(layer, name) == pytest.approx(value, rel=1e-4, abs=2e-5), name
    assert found[-1].update_angle is None


def test_a_silent_layer_does_nothing_and_changes_no_other(tmp_path):
    grow(tiny("llama"), tmp_path / "grown", "identity", gaps="1,4")
    before, after = measured(tiny("llama")), measured(tmp_path / "grown")
    for position in (2, 6):
        layer = after[position]
        assert (layer.angle, layer.attention, layer.feed_forward, layer.contribution) == (0, 0, 0, 0)
        assert layer.block_influence == 0
        assert layer.layer_cosine == 0
    kept = [layer for position, layer in enumerate(after) if position not in (2, 6)]
    for old, new in zip(before, kept, strict=True):
        for name in ("angle", "block_influence", "norm", "lens_kl", "lens_overlap", "shortcut_loss", "projection"):
            assert getattr(old, name) == pytest.approx(getattr(new, name), rel=1e-5, abs=1e-6), name


def test_the_stream_behind_the_last_layer_would_predict_as_the_model_does(tmp_path):
    """A silent layer on top sees the end."""
    grow(tiny("llama"), tmp_path / "grown", "llama_pro", layers=7)
    *below, top = found = measured(tmp_path / "grown")
    for depth in (by_divergence, by_last_divergence, by_overlap):  # a silent layer on top leaves them where they were
        assert depth(found) == depth(below) == depth(measured(tiny("llama")))
    assert top.lens_kl == pytest.approx(0, abs=1e-6)
    assert top.lens_overlap == 1
    assert top.angle_to_end == 0
    assert top.projection == pytest.approx(1, abs=1e-6)
