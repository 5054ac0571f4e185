"""Fused matrices are grown part by part: the new layers are those of the model with its parts stored apart."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformers as hf
from safetensors.numpy import load_file, save_file

from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.reader import open_checkpoint
from lesa_jax.families.roles import is_linear
from lesa_jax.growth.beside import weight_kinds
from lesa_jax.growth.matrices import OldMatrices
from lesa_jax.growth.run import grow as grow_together
from lesa_jax.growth.settings import ExpandSettings
from lesa_jax.planning import methods
from tests.support import tiny as checkpoints
from tests.support.growth import grow
from tests.support.tiny import LLAMA_LIKE, save, tiny

GAPS, NEW = "2,2,3", (3, 4, 6)
APART = hf.LlamaConfig(**LLAMA_LIKE, tie_word_embeddings=False)


def per_group(groups: int, *heights: int) -> list[np.ndarray]:
    """Row numbers of the parts of a fused matrix, written out."""
    numbers = np.arange(groups * sum(heights)).reshape(groups, -1)
    return [part.reshape(-1) for part in np.split(numbers, np.cumsum(heights)[:-1], axis=1)]


QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
GATE_UP = {"mlp.gate_up_proj": (("mlp.gate_proj", "mlp.up_proj"), per_group(1, 48, 48))}
# Of each family the fused matrices, what their parts are called where they lie apart, and their rows: heads of 8.
FUSED = {
    "phi3": {"self_attn.qkv_proj": (QKV, per_group(1, 32, 16, 16))} | GATE_UP,
    "glm": GATE_UP,
    "gpt_neox": {"attention.query_key_value": (QKV, per_group(4, 8, 8, 8))},
    "falcon": {"self_attention.query_key_value": (QKV, per_group(1, 32, 8, 8))},
    "falcon_grouped": {"self_attention.query_key_value": (QKV, per_group(2, 16, 8, 8))},
    "gpt2": {"attn.c_attn": (QKV, per_group(1, 32, 32, 32))},
}
# The same model with parts apart, where that is a family; it knows what attention writes, for opt_deus.
LIKE = {"phi3": APART, "glm": hf.Qwen2Config(**LLAMA_LIKE)}


@pytest.fixture(autouse=True)
def alike(monkeypatch: pytest.MonkeyPatch, registry: None) -> None:
    """What is random about a kind depends on its name, which is another where the parts lie apart."""
    monkeypatch.setattr(OldMatrices, "key", lambda self, seed: jax.random.key(seed))
    methods.register("sums", methods.Method("", "", "top", methods.Formula(sums)))
    grouped = {"new_decoder_architecture": True, "num_kv_heads": 2, "bias": True}
    small = {"hidden_size": 32, "num_hidden_layers": 6, "num_attention_heads": 4, "vocab_size": 64}
    monkeypatch.setitem(checkpoints.CONFIGS, "falcon_grouped", lambda: hf.FalconConfig(**small, **grouped))


def sums(weights, gaps, key):
    """Every row depends on those above it, and all on the number of rows."""
    return jnp.cumsum(jnp.asarray(weights), axis=1)[jnp.array(gaps)] / weights.shape[1]


def parts_of(family: str, name: str) -> tuple[str, tuple[str, ...], list[np.ndarray]] | None:
    """A fused tensor's module, its parts and their rows; None for all others."""
    for fused, (parts, rows) in FUSED[family].items():
        if f".{fused}." in name:
            return fused, parts, rows
    return None


def taken_apart(family: str, source: Path, target: Path) -> Path:
    """The checkpoint with each part a tensor of its own, as [out, in]; of types that are no family, the parts alone."""
    target.mkdir()
    tensors = {}
    for name, tensor in load_file(source / "model.safetensors").items():
        if (found := parts_of(family, name)) is None:
            tensors |= {name: tensor} if family in LIKE else {}
            continue
        fused, parts, rows = found
        for part, numbers in zip(parts, rows, strict=True):
            tensors[name.replace(fused, part)] = np.ascontiguousarray(upright(family, tensor)[numbers])
    save_file(tensors, target / "model.safetensors")
    config = LIKE[family].to_dict() if family in LIKE else {"model_type": "unknown", "num_layers": 6}
    (target / "config.json").write_text(json.dumps(config))
    return target


def upright(family: str, tensor: np.ndarray) -> np.ndarray:
    return tensor.T if family == "gpt2" else tensor


METHODS = ("sums", "average", "random", "opt_deus", "lesa_published")
LONG = ("opt_deus", "lesa_published")
PAIRS = [pytest.param(f, m, marks=[pytest.mark.slow] if m in LONG else []) for f in FUSED for m in METHODS]


@pytest.mark.parametrize(("family", "method"), PAIRS)
def test_new_layers_are_those_of_the_model_with_its_parts_apart(tmp_path, family, method):
    source = save(tmp_path / "source", family)
    apart = taken_apart(family, source, tmp_path / "apart")
    options = {"output_scale": 1.0} if method == "opt_deus" else {}  # no outputs to silence where parts are all
    for model in (source, apart):
        grow(model, tmp_path / f"{model.name}-grown", method, gaps=GAPS, seed=3, **options)
    before = load_file(source / "model.safetensors")
    grown, expected = (load_file(tmp_path / f"{name}-grown" / "model.safetensors") for name in ("source", "apart"))
    compared = 0
    for name, tensor in grown.items():
        if (found := parts_of(family, name)) is None:
            continue
        assert tensor.shape == before[renumbered(name, 0)].shape
        fused, parts, rows = found
        for part, numbers in zip(parts, rows, strict=True):
            np.testing.assert_array_equal(upright(family, tensor)[numbers], expected[name.replace(fused, part)])
            compared += number_of(name) in NEW
    assert compared == len(NEW) * sum(
        len(FUSED[family][fused][0]) * sum(f"0.{fused}.{leaf}" in "\n".join(before) for leaf in ("weight", "bias"))
        for fused in FUSED[family]
    )


def number_of(name: str) -> int:
    return next(int(part) for part in name.split(".") if part.isdecimal())


def renumbered(name: str, layer: int) -> str:
    return ".".join(str(layer) if part.isdecimal() else part for part in name.split("."))


def test_the_parts_are_what_reports_speak_of(tmp_path):
    result = grow(tiny("phi3"), tmp_path / "out", "average", gaps="2")
    assert set(result.kinds) == {
        *(f"self_attn.qkv_proj[{part}]" for part in ("query", "key", "value")),
        *(f"mlp.gate_up_proj[{part}]" for part in ("gate", "up")),
        "self_attn.o_proj",
        "mlp.down_proj",
    }
    value = result.kinds["self_attn.qkv_proj[value]"]
    original = load_file(tiny("phi3") / "model.safetensors")
    norms = [np.linalg.norm(original[f"model.layers.{layer}.self_attn.qkv_proj.weight"][48:]) for layer in range(6)]
    assert value.old_norm == pytest.approx(np.mean(norms), rel=1e-6)
    grown = load_file(tmp_path / "out" / "model.safetensors")["model.layers.3.self_attn.qkv_proj.weight"]
    assert value.new_norm == pytest.approx(np.linalg.norm(grown[48:]), rel=1e-6)


def test_ways_grown_together_are_the_same_to_the_byte_as_alone(tmp_path):
    """Parts of one tensor come in different batches; a way that fails between them leaves the others alone."""
    methods.register("halting", methods.Method("", "", "top", methods.Formula(halting)))
    ways = ("sums", "halting", "random", "opt_deus")

    def settings(way: str, folder: str) -> ExpandSettings:
        return ExpandSettings(str(tiny("phi3")), tmp_path / folder / way, method=way, gaps=GAPS)

    outcomes = grow_together([settings(way, "together") for way in ways])
    assert "no keys" in str(outcomes[1])
    for way in ("sums", "random", "opt_deus"):
        grow_together([settings(way, "alone")])
        alone, together = (tmp_path / folder / way / "model.safetensors" for folder in ("alone", "together"))
        assert alone.read_bytes() == together.read_bytes(), way
    assert not (tmp_path / "together" / "halting").exists()


def halting(weights, gaps, key):
    if weights.shape[1] == 16:
        raise ValueError("no keys")
    return sums(weights, gaps, key)


def test_no_other_tensor_is_taken_apart():
    for family in ("llama", "phi3", "gpt2", "mixtral", "opt"):
        checkpoint = open_checkpoint(tiny(family))
        for stack in checkpoint.stacks:
            known = any(f".{fused}." in stack.template for fused in FUSED.get(family, {}))
            kinds = weight_kinds(checkpoint, stack, (0,) * (len(stack.sizes) - 1)) if stack.sizes else ()
            assert all((kind.part is not None) == known for kind in kinds), stack.template
            assert not known or not is_linear(stack.template) or sum(kind.shape[1] for kind in kinds) in (64, 96)


@pytest.mark.parametrize(("family", "name"), [("phi3", "self_attn.qkv_proj"), ("gpt_neox", "query_key_value")])
def test_a_wrong_number_of_rows_ends_in_one_line(tmp_path, family, name):
    source = save(tmp_path / "source", family)
    tensors = load_file(source / "model.safetensors")
    wrong = {key: t[:-8].copy() if f".{name}." in key else t for key, t in tensors.items()}
    save_file(wrong, source / "model.safetensors")
    with pytest.raises(InputError, match=rf"tensor \S*{name}") as caught:
        grow(source, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
