"""The whole path: kept tensors are kept to the byte, the function where it is promised, bad input costs nothing."""

import json
import os
import platform
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from lesa_jax.checkpoint.reader import open_checkpoint, read, read_bytes
from lesa_jax.growth.run import expand
from lesa_jax.growth.settings import ExpandSettings
from lesa_jax.planning.placement import make_plan
from lesa_jax.planning.record import read_growth
from tests.support.growth import QUICK, TOKENS, grow
from tests.support.tiny import DECODERS, SILENCEABLE, save, tiny, torch_logits

METHODS = ("lesa", "llama_pro", "solar", "duplicate")


def rename(name: str, layer_prefix: str, position: int) -> str:
    """The name with another layer number."""
    _, _, rest = name.removeprefix(layer_prefix).partition(".")
    return f"{layer_prefix}{position}.{rest}"


# Every prediction is compiled for its shapes, seconds for each family; stacking copies alike for all.
FIRST = {"lesa": ("llama", "mixtral"), "solar": ("llama", "gemma3", "deepseek_v3"), "duplicate": ("llama", "gpt2")}
PAIRS = [
    pytest.param(f, m, marks=[pytest.mark.slow] if f not in FIRST.get(m, DECODERS) else [])
    for f in DECODERS
    for m in METHODS
    if m != "llama_pro" or f in SILENCEABLE
]


@pytest.mark.parametrize(("family", "method"), PAIRS)
def test_originals_are_byte_equal_and_transformers_loads_the_result(tmp_path, family, method):
    report = grow(tiny(family), tmp_path / "out", method)
    before, after = open_checkpoint(tiny(family)), open_checkpoint(tmp_path / "out")
    prefix = next(s.prefix for s in before.stacks if len(s.sizes) and s.sizes[0] >= 5)
    positions = {slot.layer: p for p, slot in enumerate(report.plan.slots) if not slot.new}
    for name, entry in before.entries.items():
        inside = name.startswith(prefix)
        layer = int(name.removeprefix(prefix).split(".")[0]) if inside else -1
        kept = after.entries[rename(name, prefix, positions[layer]) if inside else name]
        assert kept.spec == entry.spec
        assert read_bytes(after, kept) == read_bytes(before, entry)
    model, info = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert model.config.num_hidden_layers == report.plan.layers
    assert report.parameters[1] == after.parameters == report.parameters[0] + report.new_parameters


ELSEWHERE = [pytest.param(place, marks=pytest.mark.slow) for place in ("top", "bottom")]


@pytest.mark.parametrize("placement", ["even", *ELSEWHERE])
@pytest.mark.parametrize("family", SILENCEABLE)
def test_llama_pro_leaves_the_logits_unchanged(tmp_path, family, placement):
    grow(tiny(family), tmp_path / "out", "llama_pro", placement=placement)
    torch.testing.assert_close(
        torch_logits(tmp_path / "out", TOKENS), torch_logits(tiny(family), TOKENS), atol=0, rtol=0
    )


@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral"])
@pytest.mark.parametrize("method", [pytest.param("lesa_published", marks=pytest.mark.slow), "solar", "duplicate"])
def test_the_other_methods_do_change_them(tmp_path, family, method):
    """The comparison above proves nothing if no new layer ever moves the logits."""
    grow(tiny(family), tmp_path / "out", method)
    change = torch_logits(tmp_path / "out", TOKENS) - torch_logits(tiny(family), TOKENS)
    assert change.abs().max() > 1e-3


def test_duplicate_copies_the_layer_below(tmp_path):
    grow(tiny("mixtral"), tmp_path / "out", "duplicate", gaps="3")
    after = load_file(tmp_path / "out" / "model.safetensors")
    for name, tensor in after.items():
        if name.startswith("model.layers.4."):
            torch.testing.assert_close(tensor, after[rename(name, "model.layers.", 3)], atol=0, rtol=0)


def test_solar_equals_two_stacked_copies_in_torch(tmp_path):
    grow(tiny("qwen2"), tmp_path / "out", "solar")
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny("qwen2"), attn_implementation="eager")
    order = [0, 1, 2, 3, 4, 2, 3, 4, 5]
    model.model.layers = torch.nn.ModuleList(model.model.layers[i] for i in order)
    model.config.num_hidden_layers = len(order)
    model.config.layer_types = [model.config.layer_types[i] for i in order]
    with torch.no_grad():
        expected = model(torch.tensor(TOKENS), use_cache=False).logits
    torch.testing.assert_close(torch_logits(tmp_path / "out", TOKENS), expected, atol=1e-6, rtol=0)


def test_tied_embeddings_stay_one_tensor(tmp_path):
    grow(tiny("llama_tied"), tmp_path / "out")
    assert "lm_head.weight" not in open_checkpoint(tmp_path / "out").entries
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.lm_head.weight is model.model.embed_tokens.weight


@pytest.mark.parametrize("method", [*METHODS, "random", "opt_deus"])
def test_same_seed_same_bytes(tmp_path, method):
    for name in "ab":
        grow(tiny("llama"), tmp_path / name, method)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "b").iterdir())
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


def test_growth_json_names_the_machine_where_something_was_computed(tmp_path):
    """The last digits of an eigensolver's results depend on the number of cores."""
    for method in ("duplicate", "average"):
        grow(tiny("llama"), tmp_path / method, method)
    copied, computed = (json.loads((tmp_path / name / "growth.json").read_text()) for name in ("duplicate", "average"))
    assert "machine" not in copied
    assert computed["machine"] == {
        "device": "cpu",
        "processor": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
    }
    assert read_growth(tmp_path / "average", 9).to_json() == computed


def test_another_seed_gives_other_new_layers_only(tmp_path):
    for seed in (0, 1):
        grow(tiny("llama"), tmp_path / str(seed), seed=seed)
    a, b = (load_file(tmp_path / str(seed) / "model.safetensors") for seed in (0, 1))
    changed = {name.split(".")[2] for name in a if not torch.equal(a[name], b[name])}
    assert changed == {str(p) for p in make_plan(6, "lesa").new_layers}


@pytest.mark.parametrize("dtype", [pytest.param(torch.float16, marks=pytest.mark.slow), torch.bfloat16])
def test_new_tensors_have_the_sources_dtype(tmp_path, dtype):
    source = save(tmp_path / "source", "llama", dtype)
    grow(source, tmp_path / "out")
    assert {tensor.dtype for tensor in load_file(tmp_path / "out" / "model.safetensors").values()} == {dtype}


@pytest.mark.parametrize(("source", "rows"), [("first", [0]), ("previous", [3]), ("next", [4]), ("mean", [3, 4])])
def test_norms_and_biases_come_from_the_chosen_layer(tmp_path, source, rows):
    grow(tiny("qwen2"), tmp_path / "out", gaps="3", norm_source=source)
    before, after = open_checkpoint(tiny("qwen2")), open_checkpoint(tmp_path / "out")
    for rest in ("input_layernorm.weight", "self_attn.q_proj.bias"):
        expected = np.mean([read(before, f"model.layers.{row}.{rest}") for row in rows], axis=0)
        np.testing.assert_allclose(read(after, f"model.layers.4.{rest}"), expected, rtol=1e-6)


def test_means_of_norms_lie_where_the_means_of_matrices_do(tmp_path):
    """Several new layers in one gap divide it into equal steps, norms and biases as well as matrices."""
    grow(tiny("qwen2"), tmp_path / "out", "average", gaps="1,3,3,3")
    before, after = open_checkpoint(tiny("qwen2")), open_checkpoint(tmp_path / "out")
    for rest in ("input_layernorm.weight", "self_attn.q_proj.bias", "self_attn.q_proj.weight"):
        below, above = (read(before, f"model.layers.{layer}.{rest}") for layer in (3, 4))
        for position, t in ((5, 1 / 4), (6, 2 / 4), (7, 3 / 4)):
            new = read(after, f"model.layers.{position}.{rest}")
            np.testing.assert_allclose(new, (1 - t) * below + t * above, rtol=1e-5, atol=1e-7, err_msg=rest)


def test_gpt2_is_predicted_in_its_transposed_layout(tmp_path):
    """c_attn lies as [in, out]; the prediction of the transposed model must be the transposed prediction.

    The first Qwen's c_attn has the same name and the same parts, and lies as [out, in].
    """
    transposed = tmp_path / "transposed"
    transposed.mkdir()
    tensors = load_file(tiny("gpt2") / "model.safetensors")
    linear = ("c_attn.weight", "c_fc.weight", "c_proj.weight")
    flipped = {name: t.T.contiguous() if name.endswith(linear) else t for name, t in tensors.items()}
    save_file(flipped, transposed / "model.safetensors")
    (transposed / "config.json").write_text(json.dumps({"model_type": "qwen", "n_layer": 6}))
    for source in (tiny("gpt2"), transposed):
        grow(source, tmp_path / f"{source.name}-out", gaps="3")
    ours = load_file(tmp_path / f"{tiny('gpt2').name}-out" / "model.safetensors")
    reference = load_file(tmp_path / "transposed-out" / "model.safetensors")
    for name, tensor in ours.items():
        expected = reference[name].T if name.endswith(linear) else reference[name]
        torch.testing.assert_close(tensor, expected, atol=0, rtol=0)


def test_packed_experts_are_predicted_one_by_one(tmp_path):
    """Experts that lie in one tensor [experts, out, in] are kinds of their own."""
    source = tmp_path / "source"
    source.mkdir()
    rng = np.random.default_rng(0)
    packed = {f"l.{i}.experts": torch.tensor(rng.normal(0, 0.1, (3, 8, 5)), dtype=torch.float32) for i in range(5)}
    save_file(packed, source / "model.safetensors")
    (source / "config.json").write_text('{"model_type": "unknown", "num_layers": 5}')
    grow(source, tmp_path / "out", gaps="2")
    new = load_file(tmp_path / "out" / "model.safetensors")["l.3.experts"]
    assert new.shape == (3, 8, 5)
    assert len({expert.numpy().tobytes() for expert in new}) == 3
    norms = torch.linalg.matrix_norm(new)
    assert (norms > 0.2 * torch.linalg.matrix_norm(packed["l.2.experts"])).all()


def test_routers_are_copied_and_every_expert_is_predicted(tmp_path):
    grow(tiny("mixtral"), tmp_path / "out", gaps="2", norm_source="previous")
    after = open_checkpoint(tmp_path / "out")
    gate = "block_sparse_moe.gate.weight"
    np.testing.assert_array_equal(read(after, f"model.layers.3.{gate}"), read(after, f"model.layers.2.{gate}"))
    experts = [read(after, f"model.layers.3.block_sparse_moe.experts.{e}.w1.weight") for e in range(12)]
    assert all(np.isfinite(expert).all() and expert.std() > 0 for expert in experts)
    assert len({expert.tobytes() for expert in experts}) == 12


def test_sharded_output(tmp_path):
    grow(tiny("llama"), tmp_path / "one", "duplicate")
    grow(tiny("llama"), tmp_path / "many", "duplicate", shard_size=5e-5)
    one, many = open_checkpoint(tmp_path / "one"), open_checkpoint(tmp_path / "many")
    assert len(many.files) > 3
    assert all(read_bytes(one, one.entries[name]) == read_bytes(many, many.entries[name]) for name in one.entries)
    index = json.loads((tmp_path / "many" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == many.nbytes


def test_files_go_along(tmp_path):
    source = save(tmp_path / "source", "llama")
    texts = {
        "vocab.json": "{}",
        "tokenizer.model": "x",
        "chat_template.jinja": "{{ messages }}",
        "LICENSE": "l",
        "notes.md": "n",
    }
    for name, text in texts.items():
        (source / name).write_text(text)
    (source / "old.bin").write_bytes(b"weights")
    (source / ".cache").mkdir()
    grow(source, tmp_path / "out", "duplicate")
    for name, text in texts.items():
        assert (tmp_path / "out" / name).read_text() == text
    assert (tmp_path / "out" / "generation_config.json").exists()
    assert not (tmp_path / "out" / "old.bin").exists()


def test_growth_json_says_what_was_done(tmp_path):
    report = grow(tiny("llama"), tmp_path / "out", gaps="1,3-4", seed=7)
    growth = read_growth(tmp_path / "out", 9)
    assert growth.plan == report.plan == make_plan(6, "lesa", gaps=[1, 3, 4])
    assert growth.method == "lesa"
    assert growth.settings["seed"] == 7
    assert growth.settings["epochs"] == QUICK["predictor"].epochs
    assert set(growth.source["sha256"]) == {"model.safetensors"}
    assert set(growth.measurements["kinds"]) == set(report.kinds)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Layers 2, 5, 7 (counted from 0) are new" in card


def test_a_grown_checkpoint_can_be_grown_again(tmp_path):
    grow(tiny("llama"), tmp_path / "a", "duplicate", gaps="0")
    grow(tmp_path / "a", tmp_path / "b", "llama_pro", gaps="5")
    assert read_growth(tmp_path / "b", 8).plan == make_plan(7, "llama_pro", gaps=[5])


def test_report_on_norms(tmp_path):
    report = grow(tiny("llama"), tmp_path / "out", gaps="2")
    before, after = open_checkpoint(tiny("llama")), open_checkpoint(tmp_path / "out")
    kind = report.kinds["mlp.up_proj"]
    old = np.mean([np.linalg.norm(read(before, f"model.layers.{i}.mlp.up_proj.weight")) for i in range(6)])
    new = np.linalg.norm(read(after, "model.layers.3.mlp.up_proj.weight"))
    np.testing.assert_allclose([kind.old_norm, kind.new_norm], [old, new], rtol=1e-5)


def test_dry_run_touches_nothing(tmp_path):
    report = expand(ExpandSettings(str(tiny("llama")), tmp_path / "deep" / "out", dry_run=True))
    assert list(tmp_path.iterdir()) == []
    grown = grow(tiny("llama"), tmp_path / "out")
    size = sum(f.stat().st_size for f in (tmp_path / "out").glob("*.safetensors"))
    assert report.nbytes == grown.nbytes == size
    assert report.parameters == grown.parameters


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_nothing_and_sigterm_what_can_go_on(tmp_path, sent):
    """Many epochs, so that the signal arrives in the middle of the work."""
    source = save(tmp_path / "source", "llama")
    output = tmp_path / "out"
    # A shell starts background jobs with Ctrl-C ignored, and the tests may be such a job.
    start = (
        "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "runpy.run_module('lesa_jax.expand', run_name='__main__', alter_sys=True)"
    )
    options = ["--model", source, "--output", output, "--method", "lesa", "--epochs", "200000"]
    command = [sys.executable, "-c", start, *options]
    with subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob(".out.partial/model.safetensors")):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        time.sleep(3)  # into the prediction
        process.send_signal(sent)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    assert "interrupted: nothing was written under the output's name" in err
    assert ("the same command goes on" in err) == (sent == signal.SIGTERM)
    hidden = [".out.lock", ".out.partial"] if sent == signal.SIGTERM else []
    assert sorted(path.name for path in tmp_path.iterdir()) == [*hidden, "source"]
