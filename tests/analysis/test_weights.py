"""What matrices are like, against numpy in float64 on the tensors themselves."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from lesa_jax.analysis.weights import LEADING, leading_values, measure_weights
from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.reader import open_checkpoint
from tests.support.changed import changed_copy
from tests.support.growth import grow
from tests.support.tiny import tiny


def measured(folder, layers=6):
    names = []
    found = measure_weights(open_checkpoint(folder), layers, names.append)
    assert names == [kind.kind for kind in found]
    return {kind.kind: kind for kind in found}


def check(kind, matrices):
    """Against float64; `matrices` is [layers, experts, out, in]."""
    w = np.asarray(matrices, np.float64)
    values = np.linalg.svd(w, compute_uv=False)
    norm = np.linalg.norm(w, axis=(2, 3))
    assert kind.shape == w.shape[2:]
    np.testing.assert_allclose(kind.norm, norm.mean(1), rtol=1e-5)
    np.testing.assert_allclose(kind.stable_rank, (norm**2 / values[..., 0] ** 2).mean(1), rtol=1e-5)
    np.testing.assert_allclose(kind.leading, values[..., :LEADING].mean(1), rtol=1e-5)
    assert kind.neighbour_error[0] is kind.neighbour_error[-1] is None
    for layer in range(1, len(w) - 1):
        errors = []
        for below, matrix, above in zip(*w[layer - 1 : layer + 2], strict=True):
            both = (below + above).reshape(-1, 1)
            _, residual, _, _ = np.linalg.lstsq(both, matrix.reshape(-1), rcond=None)
            errors.append(residual[0] / np.sum(matrix**2))
        assert kind.neighbour_error[layer] == pytest.approx(np.mean(errors), abs=1e-5)


def test_every_kind_of_a_llama():
    tensors, found = load_file(tiny("llama") / "model.safetensors"), measured(tiny("llama"))
    assert len(found) == 7
    for name, kind in found.items():
        check(kind, [[tensors[f"model.layers.{layer}.{name}.weight"]] for layer in range(6)])
        assert kind.layers == (0, 1, 2, 3, 4, 5)
        assert kind.continuity is not None
        assert 0 <= kind.continuity.correlation <= 1
        assert kind.prediction is not None
        assert kind.prediction.held_out == (3,)
        assert kind.prediction.scaled_error <= 1 < kind.prediction.error  # a random model


def test_fused_and_transposed_matrices_are_taken_apart():
    tensors, found = load_file(tiny("gpt2") / "model.safetensors"), measured(tiny("gpt2"))
    prefix = next(name for name in tensors if name.endswith("h.0.attn.c_attn.weight")).partition("h.0")[0]
    for part, name in enumerate(("query", "key", "value")):
        rows = slice(32 * part, 32 * (part + 1))
        check(found[f"attn.c_attn[{name}]"], [[tensors[f"{prefix}h.{i}.attn.c_attn.weight"].T[rows]] for i in range(6)])


def test_experts_are_one_kind():
    tensors, found = load_file(tiny("qwen3_moe") / "model.safetensors"), measured(tiny("qwen3_moe"))
    kind = found["mlp.experts.*.up_proj"]
    name = "model.layers.{}.mlp.experts.{}.up_proj.weight"
    check(kind, [[tensors[name.format(layer, expert)] for expert in range(4)] for layer in range(1, 6)])
    assert kind.layers == (1, 2, 3, 4, 5)
    assert kind.continuity is found["mlp.gate"].continuity is None  # an expert's number says nothing of another layer
    assert kind.prediction is found["mlp.gate"].prediction is None
    assert found["self_attn.q_proj"].continuity is not None
    assert found["self_attn.q_proj"].prediction is not None


def test_many_singular_values_by_lanczos():
    """Also of a steep spectrum, and of none."""
    rng = np.random.default_rng(0)
    u, v = (np.linalg.qr(rng.standard_normal((n, 64)))[0] for n in (96, 64))
    for values in (np.geomspace(1, 1e-4, 64), np.linspace(2, 1, 64)):
        found = leading_values(((u * values) @ v.T).astype(np.float32))
        np.testing.assert_allclose(found, values[:LEADING], rtol=1e-4)
    assert leading_values(np.zeros((96, 64), np.float32)).tolist() == [0] * LEADING


def test_silent_layers_are_no_fault(tmp_path):
    grow(tiny("llama"), tmp_path / "grown", "identity", gaps="1,4")
    silent = measured(tmp_path / "grown", 8)["mlp.down_proj"]
    assert [silent.norm[layer] for layer in (2, 6)] == [silent.stable_rank[layer] for layer in (2, 6)] == [0, 0]
    assert silent.neighbour_error[2] == silent.neighbour_error[6] == 1
    assert silent.continuity is not None
    assert np.isfinite(silent.continuity.adjacent_cosine)


def test_damaged_matrices_are_named(tmp_path):
    def damage(tensors):
        tensors["model.layers.3.mlp.up_proj.weight"][0, 0] = np.nan

    folder = changed_copy(tiny("llama"), tmp_path / "damaged", damage)
    with pytest.raises(InputError, match=r"model\.layers\.3\.mlp\.up_proj\.weight: holds NaN"):
        measured(folder)
