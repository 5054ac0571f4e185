"""Every causal language model that transformers has: grown by LLaMA Pro it computes the same, or we do not say so."""

import pytest
import torch
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from lesa_jax.base.errors import InputError
from lesa_jax.families.depth import BY_DEPTH, INDEPENDENT, NEVER_SILENT
from tests.support.every_type import UNBUILT, save_type
from tests.support.growth import TOKENS, grow
from tests.support.tiny import torch_logits

TYPES = sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def test_types_are_in_one_list_only():
    assert not INDEPENDENT & (BY_DEPTH.keys() | NEVER_SILENT.keys())
    assert not INDEPENDENT & UNBUILT.keys()


@pytest.mark.slow
@pytest.mark.parametrize("model_type", [name for name in TYPES if name not in UNBUILT])
def test_a_silent_layer_changes_nothing_in_silence(tmp_path, model_type):
    source = save_type(model_type, tmp_path / "source")
    try:
        function = grow(source, tmp_path / "grown", "llama_pro", layers=9).function
    except InputError:
        assert model_type not in INDEPENDENT, "it is known to grow"
        return
    doubted = function.startswith("not verified")
    assert doubted == (model_type not in INDEPENDENT), function
    if not doubted:
        before, after = (torch_logits(tmp_path / name, TOKENS) for name in ("source", "grown"))
        assert before.isfinite().all()
        torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-5)
