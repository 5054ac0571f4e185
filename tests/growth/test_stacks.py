"""Encoder-decoders grow in one stack or in both, by every method, into what transformers loads and runs alike."""

import json
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers as hf

from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.reader import open_checkpoint, read, read_bytes
from lesa_jax.families.roles import writes_residual
from lesa_jax.growth.preserved import check_preserved
from lesa_jax.models import encoder_decoder
from lesa_jax.models.encoder_decoder import whole_rows
from lesa_jax.models.load import load_model
from lesa_jax.planning.methods import METHODS, Lesa
from lesa_jax.planning.plan import Plan
from lesa_jax.planning.record import read_growth
from tests.support.growth import grow
from tests.support.tiny import T5_LIKE, tiny, torch_pair_logits

RNG = np.random.default_rng(0)
SOURCE, TARGET = RNG.integers(3, 64, (2, 15)), RNG.integers(3, 64, (2, 9))
DEPTHS = {"encoder": (6, 5), "decoder": (4, 7), "both": (6, 7)}
SLOW = pytest.mark.slow
logits = jax.jit(encoder_decoder.logits, static_argnums=3)


def torch_logits(folder) -> np.ndarray:
    counted = torch.ones(SOURCE.shape, dtype=torch.long)
    return torch_pair_logits(folder, torch.tensor(SOURCE), counted, torch.tensor(TARGET)).numpy()


def our_logits(folder) -> np.ndarray:
    params, config = load_model(folder)
    return np.asarray(logits(params, whole_rows(jnp.asarray(SOURCE)), whole_rows(jnp.asarray(TARGET)), config))


QUICK = [
    ("t5", "solar", "both"),
    ("t5_gated", "llama_pro", "decoder"),
]
EVERY = [
    (family, method, stack)
    for family in ("t5", "t5_gated", "bart")
    for method in METHODS
    for stack in (["both"] if family == "t5_gated" else DEPTHS)
    if not (family == "bart" and METHODS[method].scale == 0)  # refused
    if not METHODS[method].matches_experts
]


@pytest.mark.parametrize(
    ("family", "method", "stack"),
    [case if case in QUICK else pytest.param(*case, marks=SLOW) for case in EVERY],
)
def test_every_method_grows_each_stack_into_what_transformers_runs(tmp_path, family, method, stack):
    out = tmp_path / "out"
    plan = grow(tiny(family), out, method, stack=stack).plan
    assert plan.encoder is not None
    assert (plan.encoder.layers, plan.layers) == DEPTHS[stack]
    assert read_growth(out, plan.layers, plan.encoder.layers).plan == plan
    make: Any = hf.AutoModelForSeq2SeqLM
    model, info = make.from_pretrained(out, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    encoder, decoder = (model.get_encoder(), model.get_decoder())
    blocks = [len(stack.block if family != "bart" else stack.layers) for stack in (encoder, decoder)]
    assert tuple(blocks) == DEPTHS[stack]
    expected = torch_logits(out)
    np.testing.assert_allclose(our_logits(out), expected, atol=1e-4 * max(1, np.abs(expected).max()))
    start = METHODS[method].start
    nothing_learned = isinstance(start, Lesa) and start.shrunk  # of random layers: new ones may be silent
    assert nothing_learned or np.array_equal(torch_logits(tiny(family)), expected) == (METHODS[method].scale == 0)


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_originals_are_kept_to_the_byte_and_the_table_of_distances_stays_in_the_first_layer(tmp_path, family):
    plan = grow(tiny(family), tmp_path / "out", "duplicate", gaps="0,1").plan
    before, after = open_checkpoint(tiny(family)), open_checkpoint(tmp_path / "out")
    places = {"encoder": plan.encoder, "decoder": plan}
    for name, entry in before.entries.items():
        assert read_bytes(after, after.entries[moved(name, places)]) == read_bytes(before, entry), name
    tables = [name for name in after.entries if "relative_attention_bias" in name]
    assert tables == [name for name in before.entries if "relative_attention_bias" in name]
    assert len(tables) == (2 if family == "t5" else 0)


def moved(name: str, plans: dict[str, Any]) -> str:
    """Where an original's tensor lies in the grown model."""
    parts = name.split(".")
    at = next((place for place, part in enumerate(parts) if part.isdecimal()), None)
    if at is None:
        return name
    plan = plans["encoder" if "encoder" in parts[:at] else "decoder"]
    return ".".join([*parts[:at], str(plan.old_layers[int(parts[at])]), *parts[at + 1 :]])


def test_all_three_branches_of_a_decoder_layer_are_silent(tmp_path):
    grow(tiny("t5"), tmp_path / "out", "llama_pro", stack="decoder")
    checkpoint = open_checkpoint(tmp_path / "out")
    new = [name for name in checkpoint.entries if name.startswith("decoder.block.2.")]
    zero = {name.removeprefix("decoder.block.2.") for name in new if not read(checkpoint, name).any()}
    assert zero == {
        f"layer.{part}.weight" for part in ("0.SelfAttention.o", "1.EncDecAttention.o", "2.DenseReluDense.wo")
    }


def test_a_branch_that_is_not_silent_is_found(tmp_path):
    """As a method would leave it that does not know of attention to the source."""
    grow(tiny("t5"), tmp_path / "copied", "duplicate", stack="decoder", layers=7)
    plan = grow(tiny("t5"), tmp_path / "silent", "llama_pro", stack="decoder", layers=7).plan
    copied, silent = (open_checkpoint(tmp_path / name) for name in ("copied", "silent"))
    name = "decoder.block.2.layer.1.EncDecAttention.o.weight"
    overwrite(silent, name, read_bytes(copied, copied.entries[name]))
    with pytest.raises(InputError, match="new layer 2 is not silent"):
        check_preserved(open_checkpoint(tiny("t5")), tmp_path / "silent", plan)


def overwrite(checkpoint, name: str, data: bytes | memoryview) -> None:
    entry = checkpoint.entries[name]
    with entry.file.open("r+b") as file:
        file.seek(entry.start)
        file.write(data)


def test_a_layer_of_bart_whose_outputs_are_zero_is_no_identity(tmp_path):
    """Its norms stand in the stream: this is why growth refuses to silence one."""
    grow(tiny("bart"), tmp_path / "out", "duplicate", stack="decoder", gaps="3")
    checkpoint = open_checkpoint(tmp_path / "out")
    written = [n for n in checkpoint.entries if n.startswith("model.decoder.layers.4.") and writes_residual(n)]
    assert len(written) == 6  # weights and biases of three branches
    zeros = {name: bytes(read(checkpoint, name).nbytes) for name in written}
    for name, data in zeros.items():
        overwrite(checkpoint, name, data)
    changed = np.abs(torch_logits(tmp_path / "out") - torch_logits(tiny("bart"))).max()
    assert changed > 1e-2


def test_a_decoder_that_was_as_deep_as_its_encoder_stays_so(tmp_path):
    """T5's config.json may leave the decoder's depth to be the encoder's, of which only one grows."""
    source = save_t5(tmp_path / "source", num_decoder_layers=4)
    config = json.loads((source / "config.json").read_text())
    del config["num_decoder_layers"]
    (source / "config.json").write_text(json.dumps(config))
    grow(source, tmp_path / "out", "solar", stack="encoder")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["num_layers"], config["num_decoder_layers"]) == (6, 4)
    np.testing.assert_allclose(our_logits(tmp_path / "out"), torch_logits(tmp_path / "out"), atol=1e-4)


def save_t5(folder, **changed):
    hf.T5ForConditionalGeneration(hf.T5Config(**T5_LIKE | changed)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("key", "stack"), [("num_layers", "encoder"), ("num_decoder_layers", "decoder")])
def test_layers_that_config_json_does_not_declare_are_refused(tmp_path, key, stack):
    source = shutil.copytree(tiny("t5"), tmp_path / "source")
    config = json.loads((source / "config.json").read_text()) | {key: 3}
    (source / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=f"config.json declares 3 layers but the tensors {stack}.block"):
        grow(source, tmp_path / "out", "solar")


def test_an_unknown_encoder_decoder_is_refused_by_name(tmp_path):
    source = shutil.copytree(tiny("t5"), tmp_path / "source")
    config = json.loads((source / "config.json").read_text()) | {"model_type": "longt5"}
    (source / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        InputError, match="longt5 is an encoder-decoder that is not known here; those of model_type t5, mt5 and bart"
    ):
        grow(source, tmp_path / "out", "solar")


def test_plans_of_two_stacks_go_through_json():
    encoder = Plan.from_json({"source_layers": 2, "slots": [{"layer": 0}, {"layer": 0, "new": True}, {"layer": 1}]})
    plan = Plan.from_json({"source_layers": 1, "slots": [{"layer": 0}], "encoder": encoder.to_json()})
    assert plan.encoder == encoder
    assert Plan.from_json(plan.to_json()) == plan
    assert str(plan) == "encoder 0 +0 1; decoder 0"
    assert plan.from_above().encoder == encoder.from_above()


def test_growth_json_of_another_depth_is_refused(tmp_path):
    plan = grow(tiny("t5"), tmp_path / "out", "solar").plan
    with pytest.raises(InputError, match="has 6 layers in its encoder, but the model has 5"):
        read_growth(tmp_path / "out", plan.layers, 5)
