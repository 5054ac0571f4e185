"""What others do with grown checkpoints: transformers generates and saves them, PEFT trains adapters of new layers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file

from lesa_jax.checkpoint.reader import open_checkpoint
from lesa_jax.growth.result import ExpandResult
from lesa_jax.models.config import read_config
from tests.support.growth import TOKENS, grow
from tests.support.tiny import DECODERS, ENCODER_DECODERS, RUNNING, tiny

# transformers has no OpenELM, and that of the tests does not write.
FAMILIES = [name for name in (*DECODERS, *ENCODER_DECODERS) if name != "openelm"]
FEW = {"llama", "qwen2"}


def each(families: Sequence[str]) -> list[Any]:
    """Few of them at once, the others beside the slow tests."""
    return [name if name in FEW else pytest.param(name, marks=pytest.mark.slow) for name in families]


def grown(family: str, folder: Path) -> ExpandResult:
    """With new layers that say something, so that one that is dropped or misplaced is seen."""
    # transformers' cache has no place for a T5's decoder that is deeper than its encoder, which expand says.
    stack = {"stack": "encoder"} if family in ENCODER_DECODERS else {}
    return grow(tiny(family), folder, "duplicate", gaps="1,2", **stack)


def load(family: str, folder: Path) -> Any:
    make = hf.AutoModelForSeq2SeqLM if family in ENCODER_DECODERS else hf.AutoModelForCausalLM
    return make.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.mark.parametrize("family", each(FAMILIES))
def test_transformers_writes_the_same_with_and_without_its_cache(family, tmp_path):
    model = load(family, grown(family, tmp_path / "out").output)
    tokens = torch.tensor([TOKENS[0]])
    options = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0, "attention_mask": torch.ones_like(tokens)}
    cached, uncached = (model.generate(tokens, use_cache=use, **options).tolist() for use in (True, False))
    assert cached == uncached


@pytest.mark.parametrize("family", each(FAMILIES))
def test_transformers_saves_the_tensors_that_it_read(family, tmp_path):
    folder = grown(family, tmp_path / "out").output
    load(family, folder).save_pretrained(tmp_path / "saved")
    ours, theirs = (load_file(place / "model.safetensors") for place in (folder, tmp_path / "saved"))
    # It drops what it makes itself: heads that are the embedding, gpt2's mask.
    assert theirs.keys() <= ours.keys()
    assert {name for name in ours if ".layers." in name or ".h." in name or ".block." in name} <= (
        theirs.keys() | {name for name in ours if name.endswith((".attn.bias", ".masked_bias"))}
    )
    for name, tensor in theirs.items():
        assert tensor.dtype == ours[name].dtype
        torch.testing.assert_close(tensor, ours[name], rtol=0, atol=0, msg=name)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT asks for it
@pytest.mark.parametrize("family", each([name for name in RUNNING if name in FAMILIES]))
def test_peft_trains_adapters_of_the_new_layers_alone(family, tmp_path):
    report = grown(family, tmp_path / "out")
    new, model = report.plan.new_layers, load(family, report.output)
    names = read_config(open_checkpoint(report.output).config).names
    config = peft.LoraConfig(
        r=2,
        target_modules=[names.attention_output.rpartition(".")[2]],
        layers_to_transform=list(new),
        layers_pattern=names.layers.rpartition(".")[2],
        fan_in_fan_out=family == "gpt2",
        task_type="CAUSAL_LM",
    )
    adapted = peft.get_peft_model(model, config)
    trained = {name for name, tensor in adapted.named_parameters() if tensor.requires_grad}
    layers = {int(part) for name in trained for part in name.split(".") if part.isdigit()}
    assert layers == set(new)
    before = adapted(torch.tensor(TOKENS)).logits.detach()
    optimizer = torch.optim.SGD([tensor for tensor in adapted.parameters() if tensor.requires_grad], lr=1.0)
    for _ in range(2):  # the first step moves B alone, for A's gradient is zero until then
        optimizer.zero_grad()
        adapted(torch.tensor(TOKENS), labels=torch.tensor(TOKENS)).loss.backward()
        optimizer.step()
    after = adapted(torch.tensor(TOKENS)).logits.detach()
    assert (after - before).abs().max() > 1e-4
    merged = adapted.merge_and_unload()
    torch.testing.assert_close(merged(torch.tensor(TOKENS)).logits.detach(), after, rtol=1e-4, atol=1e-4)
