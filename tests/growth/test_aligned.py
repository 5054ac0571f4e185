"""OpT-DeUS on whole layers: every tensor against float64, and what is said where a family's parts are not known."""

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as hf
from rich.console import Console

from lesa_jax.checkpoint.reader import open_checkpoint, read
from lesa_jax.growth.report import print_report
from lesa_jax.planning import methods
from tests.support import tiny as checkpoints
from tests.support.every_type import save_type
from tests.support.growth import TOKENS, grow
from tests.support.tiny import save, tiny, torch_logits
from tests.support.transport import reference_plan

METHODS = pytest.mark.parametrize("method", ["opt_deus", pytest.param("opt_deus_published", marks=pytest.mark.slow)])
GAP = 2


@pytest.fixture
def llama(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Llama that has all biases which there can be."""
    config = hf.LlamaConfig(**checkpoints.LLAMA_LIKE, attention_bias=True, mlp_bias=True)
    monkeypatch.setitem(checkpoints.CONFIGS, "llama", lambda: config)
    return save(tmp_path / "llama", "llama")


def layer(folder: Path, number: int, prefix: str = "model.layers.") -> dict[str, np.ndarray]:
    """A layer's tensors in float64, by their names inside it."""
    checkpoint, prefix = open_checkpoint(folder), f"{prefix}{number}."
    names = [name for name in checkpoint.entries if name.startswith(prefix)]
    return {name.removeprefix(prefix): read(checkpoint, name).astype(np.float64) for name in names}


def reference(below: dict[str, np.ndarray], above: dict[str, np.ndarray], method: str) -> dict[str, np.ndarray]:
    """The paper's alignment of each block with the one before it, then with its like above; outputs not yet silenced.

    "opt_deus_published" uses plans of mass 1, as the public code does.
    """

    def plan(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (1 if method == "opt_deus_published" else len(a)) * reference_plan(a, b)

    attention = plan(below["self_attn.o_proj.weight"], above["self_attn.o_proj.weight"])
    new = {"input_layernorm.weight": (below["input_layernorm.weight"] + above["input_layernorm.weight"]) / 2}
    norm = "post_attention_layernorm.weight"
    new[norm] = (below[norm] @ (0.5 * attention + 0.5 * np.eye(len(attention))) + above[norm]) / 2
    for part in ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"):
        block = "self_attn" if part in ("q_proj", "k_proj", "v_proj", "o_proj") else "mlp"
        weight, bias = f"{block}.{part}.weight", f"{block}.{part}.bias"
        old = below[weight] @ attention if part in ("gate_proj", "up_proj") else below[weight]
        own = plan(old, above[weight])
        new[weight] = (own.T @ old + above[weight]) / 2
        new[bias] = (own.T @ below[bias] + above[bias]) / 2
    return new


@METHODS
def test_every_tensor_is_that_of_the_description(tmp_path, llama, method):
    """Outputs too, while they are not silenced."""
    grow(llama, tmp_path / "out", method, gaps=str(GAP), output_scale=1.0)
    new, expected = layer(tmp_path / "out", GAP + 1), reference(layer(llama, GAP), layer(llama, GAP + 1), method)
    assert new.keys() == expected.keys()
    for name, tensor in expected.items():
        np.testing.assert_allclose(new[name], tensor, rtol=1e-4, atol=1e-5, err_msg=name)


def test_the_published_layer_is_half_of_the_next_but_for_its_norms(tmp_path, llama):
    """The public code's caveat, which no reader of the paper expects."""
    grow(llama, tmp_path / "out", "opt_deus_published", gaps=str(GAP))
    new, below, above = layer(tmp_path / "out", GAP + 1), layer(llama, GAP), layer(llama, GAP + 1)
    for name, tensor in new.items():
        if name.split(".")[1] in ("o_proj", "down_proj"):
            assert not tensor.any(), name
        elif name.startswith("post"):
            assert np.linalg.norm(tensor - (below[name] / 2 + above[name]) / 2) < 0.05 * np.linalg.norm(tensor)
        elif name.endswith("_proj.weight"):
            assert np.linalg.norm(tensor - above[name] / 2) < 0.05 * np.linalg.norm(tensor), name


@METHODS
def test_the_logits_stay(tmp_path, llama, method):
    grow(llama, tmp_path / "out", method, gaps=str(GAP))
    torch.testing.assert_close(torch_logits(tmp_path / "out", TOKENS), torch_logits(llama, TOKENS), atol=0, rtol=0)


def test_the_users_norm_source_is_obeyed(tmp_path, llama):
    grow(llama, tmp_path / "out", "opt_deus", gaps=str(GAP), norm_source="first")
    new, first = layer(tmp_path / "out", GAP + 1), layer(llama, 0)
    for name in ("post_attention_layernorm.weight", "self_attn.q_proj.bias"):
        np.testing.assert_array_equal(new[name], first[name])


def said(result) -> str:
    console = Console(record=True, width=300)
    print_report(result, console)
    return console.export_text()


def aligned(below: np.ndarray, above: np.ndarray, weights: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """The mean of two layers' rows, or of their biases, those below reordered by the plan between their weights."""
    plan = len(below) * reference_plan(*weights)
    return (plan.T @ below + above) / 2


def test_a_family_of_unknown_parts_is_aligned_in_rows_only_and_the_user_is_told(tmp_path):
    """bloom, whose queries, keys and values are one matrix, head by head: no key may take a query's place."""
    source = save_type("bloom", tmp_path / "bloom")
    result = grow(source, tmp_path / "out", "opt_deus", gaps=str(GAP))
    told = "opt_deus aligns rows only here"
    assert told in said(result)
    assert told in (tmp_path / "out" / "README.md").read_text()
    below, above = (layer(source, number, "transformer.h.") for number in (GAP, GAP + 1))
    new = layer(tmp_path / "out", GAP + 1, "transformer.h.")
    fused, rows = "self_attention.query_key_value", np.arange(96).reshape(4, 3, 8)
    modules = [(fused, rows[:, part].reshape(-1)) for part in range(3)] + [("mlp.dense_h_to_4h", np.arange(128))]
    for module, part in modules:
        weights = tuple(old[f"{module}.weight"][part] for old in (below, above))
        for name in (f"{module}.weight", f"{module}.bias"):
            expected = aligned(below[name][part], above[name][part], weights)
            np.testing.assert_allclose(new[name][part], expected, rtol=1e-4, atol=1e-5, err_msg=name)
    for norm in ("input_layernorm.weight", "post_attention_layernorm.bias"):
        np.testing.assert_allclose(new[norm], (below[norm] + above[norm]) / 2, rtol=1e-6)


def test_matrices_that_lie_as_in_out_are_aligned_in_rows_and_columns(tmp_path):
    """gpt2's: its first projection of the feed-forward network reads what attention wrote."""
    assert grow(tiny("gpt2"), tmp_path / "out", "opt_deus", gaps=str(GAP)).notes == ()
    below, above = (layer(tiny("gpt2"), number, "transformer.h.") for number in (GAP, GAP + 1))
    new = layer(tmp_path / "out", GAP + 1, "transformer.h.")
    outputs = [old["attn.c_proj.weight"].T for old in (below, above)]
    first = below["mlp.c_fc.weight"].T @ (len(outputs[0]) * reference_plan(*outputs))
    weights = first, above["mlp.c_fc.weight"].T
    for name, old in (("weight", first), ("bias", below["mlp.c_fc.bias"])):
        expected = aligned(old, above[f"mlp.c_fc.{name}"].T, weights)
        np.testing.assert_allclose(new[f"mlp.c_fc.{name}"].T, expected, rtol=1e-4, atol=1e-5, err_msg=name)


def test_a_known_family_needs_no_note(tmp_path, llama):
    for method in ("opt_deus", "random"):
        assert grow(llama, tmp_path / method, method, gaps=str(GAP)).notes == ()


def test_an_initialiser_of_ones_own_may_ask_for_what_stands_beside(tmp_path, llama, registry):
    seen = {}

    def look(weights, gaps, key, rows=None, columns=None):
        seen[weights.shape[1:]] = rows is not None, columns is not None
        return weights[np.array(gaps)]

    methods.register("look", methods.Method("", "", "top", methods.Aligned(look), norm_source="mean"))
    grow(llama, tmp_path / "out", "look", gaps=str(GAP))
    assert seen[48, 32] == (False, True)  # gate and up
    assert seen[16, 32] == (False, False)  # key and value
    assert seen[48,] == (True, True)  # the biases of gate and up
    assert seen[16,] == (True, False)
