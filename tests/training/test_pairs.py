"""Encoder-decoders train: loss and gradients against torch, frozen runs of either stack, masks, export, resumption."""

import functools
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers as hf
from flax.traverse_util import unflatten_dict
from safetensors.numpy import load_file, save_file

from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.reader import open_checkpoint, read_bytes
from lesa_jax.data import open_data
from lesa_jax.data.pairs import Pair, packed_pair
from lesa_jax.evaluation.run import EvaluateSettings, evaluate
from lesa_jax.models import encoder_decoder
from lesa_jax.models.config import read_config, read_model
from lesa_jax.models.encoder_decoder import Text, whole_rows
from lesa_jax.models.load import load_model
from lesa_jax.models.parts import output_tensor
from lesa_jax.parallel.mesh import make_mesh
from lesa_jax.planning.placement import make_plan, plan_stacks
from lesa_jax.training.cost import token_cost
from lesa_jax.training.job import make_train_job
from lesa_jax.training.mask import Mask
from lesa_jax.training.parameters import choose, encoder_segments, load_model_leaves, make_leaves
from lesa_jax.training.run import train
from lesa_jax.training.segments import merge
from lesa_jax.training.settings import TrainSettings
from lesa_jax.training.sharding import leaf_shardings
from lesa_jax.training.step import Batch, Program, mean_gradient, pair_states
from tests.support.devices import environment_of
from tests.support.family_runs import STEPS, place_of
from tests.support.growth import grow
from tests.support.operations import product_operations
from tests.support.settings import nest
from tests.support.tiny import CONFIGS, ENCODER_DECODERS, tiny, torch_pair_logits
from tests.support.tokenizers import tiny_tokenizer
from tests.support.trees import MESH, by_name

SLOW = pytest.mark.slow
RNG = np.random.default_rng(0)
PAIRS = [Pair(*(RNG.integers(3, 64, length).astype(np.int32) for length in lengths)) for lengths in ((7, 5), (9, 4))]


def pieces(folder: Path, train: str, mask: Mask | None = None, remat: Any = "none") -> Any:
    """Trees, program and leaves of a checkpoint."""
    checkpoint = open_checkpoint(folder)
    config = read_model(checkpoint)
    trained = choose(train, config, None)
    segments, leaves = make_leaves(config, trained)
    trees = load_model_leaves(checkpoint, leaves, leaf_shardings(leaves, make_mesh(MESH)), "float32")
    encoder = encoder_segments(config, trained)
    return trees, Program(config, segments, "float32", remat, output_tensor(config) in trained, mask, encoder), leaves


def packed(start: int) -> Batch:
    """Both pairs in one row, with padding behind them."""
    return batch_of(packed_pair(PAIRS, 18, 12, start))


def batch_of(row: Mapping[str, np.ndarray]) -> Batch:
    """One row, as a step takes it."""
    return Batch.of_rows({name: jnp.asarray(x)[None, None] for name, x in row.items()})


@pytest.mark.parametrize("family", ["t5", *(pytest.param(name, marks=SLOW) for name in ("t5_gated", "bart"))])
def test_loss_and_gradients_of_packed_pairs_are_those_of_torch_on_single_ones(family):
    (trained, frozen), program, leaves = pieces(tiny(family), "all", remat="block")
    batch = packed(program.config.start_token)
    losses, count, gradient = jax.jit(functools.partial(mean_gradient, program=program))(trained, frozen, batch)
    assert count == 9
    make: Any = hf.AutoModelForSeq2SeqLM
    model = make.from_pretrained(tiny(family), dtype=torch.float32, attn_implementation="eager").eval()
    total = torch.zeros(())
    for pair in PAIRS:
        source, target = (torch.tensor(x)[None].long() for x in (pair.source, pair.target))
        total = total + model(input_ids=source, labels=target).loss * len(pair.target)
    (total / 9).backward()
    np.testing.assert_allclose(losses.nll, total.detach() / 9, rtol=1e-5)
    found = {name: array.copy() for name, array in by_name(gradient, leaves).items()}
    for name, parameter in model.named_parameters():
        ours, theirs = found[name], parameter.grad.numpy()
        if "shared" in name or "embed_positions" in name:  # torch gives the row of padding none
            ours[model.config.pad_token_id] = theirs[model.config.pad_token_id] = 0
        error = np.linalg.norm(ours - theirs)
        assert error <= 1e-3 * np.linalg.norm(theirs) + 1e-7, name


@SLOW
@pytest.mark.parametrize("family", ["bart", "t5"])
def test_under_the_mask_a_grown_model_is_the_original_whatever_its_norms_do(tmp_path, family):
    """BART, too, which no silenced layer leaves as it is."""
    plan = grow(tiny(family), tmp_path / "out", "interpolate").plan
    mask = Mask(plan.new_layers, 4, plan.encoder.new_layers)
    text = whole_rows(jnp.asarray(PAIRS[0].source)[None]), whole_rows(jnp.asarray(PAIRS[0].target)[None])
    params, config = load_model(tiny(family))
    before = jax.jit(encoder_decoder.forward, static_argnums=3)(params, *text, config)
    (trained, frozen), program, _ = pieces(tmp_path / "out", "all", mask)
    states = jax.jit(pair_states, static_argnums=3)
    begun, risen = (states(merge(trained, frozen), *text, program, step) for step in (0, 4))
    np.testing.assert_allclose(begun, before, atol=1e-5)
    grown, config = load_model(tmp_path / "out")
    np.testing.assert_allclose(risen, encoder_decoder.forward(grown, *text, config), atol=1e-5)
    assert np.abs(risen - begun).max() > 1e-2


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A tiny T5 with a tokenizer; a text, and pairs of which the target is the source in capitals' place."""
    folder = tmp_path_factory.mktemp("pairs")
    for family in ("t5", "bart"):
        shutil.copytree(tiny(family), folder / family)
        tiny_tokenizer(sentinels=20).save_pretrained(folder / family)
    texts = [f"{'abc def ghi '[i % 7 :]} jkl {i} " * (1 + i % 5) for i in range(60)]
    write(folder / "text.jsonl", [{"text": text} for text in texts])
    (folder / "text.txt").write_text("".join(texts))
    write(folder / "pairs.jsonl", [{"input": text[:20], "target": text[::-1][:9]} for text in texts])
    return folder


def write(file: Path, records: list[dict[str, str]]) -> None:
    file.write_text("".join(json.dumps(record) + "\n" for record in records))


def settings(place: Path, model: str, output: str, **options: Any) -> TrainSettings:
    usual = {"steps": 6, "batch_size": 4, "sequence_length": 24, "learning_rate": 1e-2, "save_every": 3}
    data = str(place / ("pairs.jsonl" if options.get("stage") == "pairs" else "text.jsonl"))
    return nest(TrainSettings, model=str(place / model), output=place / output, data=data, **(usual | options))


CASES = [
    pytest.param("t5", "encoder", "pretrain", marks=SLOW),
    pytest.param("t5", "decoder", "pretrain", marks=SLOW),
    pytest.param("t5", "both", "pairs", marks=SLOW),
    pytest.param("bart", "both", "pairs", marks=SLOW),
]


@pytest.mark.parametrize(("family", "stack", "stage"), CASES)
def test_a_frozen_run_changes_new_layers_only_exports_and_goes_on_to_the_same_bits(place, family, stack, stage):
    name = f"{family}-{stack}"
    plan = grow(place / family, place / name, "average", stack=stack).plan
    assert plan.encoder is not None
    wanted = settings(place, name, f"run-{name}", stage=stage)
    train(wanted)
    grown, final = open_checkpoint(place / name), open_checkpoint(place / f"run-{name}" / "final")
    new = {"encoder": plan.encoder.new_layers, "decoder": plan.new_layers}
    for tensor, entry in grown.entries.items():
        parts = tensor.split(".")
        number = next((int(part) for part in parts if part.isdecimal()), None)
        side = "encoder" if "encoder" in parts[:2] else "decoder"
        same = read_bytes(final, final.entries[tensor]) == read_bytes(grown, entry)
        # The bias of keys moves all scores of a query alike, and so has no gradient.
        assert same != (number is not None and number in new[side]) or "k_proj.bias" in tensor, tensor
    check_export(final.folder)
    shutil.copytree(place / f"run-{name}", place / f"again-{name}")
    shutil.rmtree(place / f"again-{name}" / "final")
    shutil.rmtree(place / f"again-{name}" / "checkpoints" / "6")  # as if it had been stopped after step 3
    train(settings(place, name, f"again-{name}", stage=stage))
    again = open_checkpoint(place / f"again-{name}" / "final")
    assert all(read_bytes(again, again.entries[n]) == read_bytes(final, e) for n, e in final.entries.items())


@pytest.mark.parametrize("stage", ["pairs", "pretrain"])
def test_what_is_held_out_of_the_data_has_the_loss_of_training(place, stage):
    wanted = settings(place, "t5", f"held-{stage}", stage=stage, train="all", steps=1, export="none", hold_out=2)
    measured = train(wanted).losses["eval_loss"][0]
    job = make_train_job(wanted)
    _, held = open_data(
        str(wanted.data), stage, job.tokenizer, job.folder, 64, 24, wanted.output / "tokens", start_token=0
    ).hold_out(2)
    (trained, frozen), program, _ = pieces(place / "t5", "all")
    losses = [mean_gradient(trained, frozen, batch_of(row), program)[:2] for row in held]
    total = sum(float(loss.nll * count) for loss, count in losses)
    assert measured == pytest.approx(total / sum(float(count) for _, count in losses), rel=1e-5)


def check_export(folder: Path) -> None:
    make: Any = hf.AutoModelForSeq2SeqLM
    _, info = make.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    source, target = (torch.tensor(x)[None].long() for x in (PAIRS[0].source, PAIRS[0].target))
    expected = torch_pair_logits(folder, source, torch.ones_like(source), target).numpy()
    params, config = load_model(folder)
    texts = (whole_rows(jnp.asarray(x.numpy())) for x in (source, target))
    ours = jax.jit(encoder_decoder.logits, static_argnums=3)(params, *texts, config)
    np.testing.assert_allclose(ours, expected, atol=1e-4)


@SLOW
def test_old_copies_of_the_embedding_are_exported_as_it_was_trained(place):
    """The first T5 hold it three times; a copy that stayed behind would be what transformers reads."""
    folder = shutil.copytree(place / "t5", place / "copies")
    tensors = load_file(folder / "model.safetensors")
    names = "encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "shared.weight"
    tensors |= {name: tensors["shared.weight"].copy() for name in names}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    train(settings(place, "copies", "run-copies", train="all", steps=1))
    trained = load_file(place / "run-copies" / "final" / "model.safetensors")
    assert not np.array_equal(trained["shared.weight"], tensors["shared.weight"])
    for name in names:
        np.testing.assert_array_equal(trained[name], trained["shared.weight"])


def test_evaluate_gives_the_loss_of_transformers_on_pairs(place):
    result = evaluate(EvaluateSettings(str(place / "t5"), text=place / "pairs.jsonl", batch_size=7))
    make: Any = hf.AutoModelForSeq2SeqLM
    model, tokenizer = make.from_pretrained(place / "t5").eval(), tiny_tokenizer()
    total = count = 0.0
    for line in (place / "pairs.jsonl").read_text().splitlines():
        texts = (json.loads(line)[name] for name in ("input", "target"))
        source, target = (torch.tensor([[*tokenizer(text)["input_ids"], 0]]) for text in texts)
        with torch.no_grad():
            logits = model(input_ids=source, decoder_input_ids=model._shift_right(target)).logits[0]
        total += float(torch.nn.functional.cross_entropy(logits, target[0], reduction="sum"))
        count += target.numel()
    assert result["tokens"] == count
    assert math.isclose(result["nll"], total / count, rel_tol=1e-5)
    assert math.isclose(result["perplexity"], math.exp(total / count), rel_tol=1e-4)


def test_evaluate_corrupts_any_other_text_always_alike(place, tmp_path):
    (tmp_path / "text.txt").write_text("abc def ghi " * 40)
    results = [
        evaluate(EvaluateSettings(str(place / "t5"), text=tmp_path / "text.txt", sequence_length=24, batch_size=size))
        for size in (3, 8)
    ]
    assert results[0]["nll"] == pytest.approx(results[1]["nll"], rel=1e-6)
    assert results[0]["tokens"] == results[1]["tokens"] > 100


def fresh_run(place: Path, model: str, **options: Any) -> TrainSettings:
    wanted = settings(place, model, "fresh", train="all", **options)
    return replace(wanted, model=None, init="random", config=place / model / "config.json")


@SLOW
def test_fresh_weights_learn(place):
    wanted = fresh_run(place, "t5", steps=30, eval_text=place / "text.txt", eval_every=30)
    first, last = train(wanted).losses["eval_loss"]
    assert last < first - 1


def test_fresh_weights_are_as_large_as_those_of_transformers(place):
    torch.manual_seed(0)
    sizes = {"d_model": 256, "d_ff": 512, "d_kv": 64, "num_heads": 4, "num_layers": 2, "vocab_size": 512}
    config = hf.T5Config(**sizes, decoder_start_token_id=0)
    (place / "wide").mkdir()
    config.save_pretrained(place / "wide")
    tiny_tokenizer(sentinels=20).save_pretrained(place / "wide")
    model: Any = hf.T5ForConditionalGeneration(config)
    job = make_train_job(fresh_run(place, "wide"))
    tensors = {name: leaf.tensor for leaf in job.leaves for name in leaf.names}
    for name, parameter in model.named_parameters():
        tensor = tensors[name]
        if tensor.role == "norm":
            assert (tensor.fresh, float(parameter.detach().min())) == (1.0, 1.0)
        else:
            assert tensor.deviation == pytest.approx(float(parameter.detach().std()), rel=0.15), name


@SLOW
def test_eight_devices_give_the_losses_of_one(tmp_path):
    found = {}
    for family in ENCODER_DECODERS:
        place_of(tmp_path, family)
    for devices in (8, 1):
        env = environment_of(devices)
        command = [sys.executable, "-m", "tests.support.family_runs", str(tmp_path), *ENCODER_DECODERS]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        found[devices] = json.loads(done.stdout.splitlines()[-1])
    for family in ENCODER_DECODERS:
        assert len(found[1][family]) == STEPS
        np.testing.assert_allclose(found[8][family], found[1][family], rtol=1e-5, err_msg=family)


CROSS_KEYS = r"decoder\..*\.1\.(layer|encoder_attn).*(EncDecAttention\.k|k_proj\.weight)"
TRAINED = ["new", "all", CROSS_KEYS, r"encoder\..*\.0\..*norm"]


@pytest.mark.parametrize("train", TRAINED)
@pytest.mark.parametrize("stack", ["encoder", "decoder", "both"])
@pytest.mark.parametrize(
    "family", ["t5", *(pytest.param(more, marks=pytest.mark.slow) for more in ("t5_gated", "bart"))]
)
def test_the_formula_for_the_cost_is_the_count(family, stack, train):
    """Of matrix products in a step's gradient. Targets are of one token: of longer ones the products of attention to
    later tokens, whose scores are masked, are in the program and not in the formula."""
    config = read_config(CONFIGS[family]().to_dict())
    plan = plan_stacks([2, 3], stack, lambda depth: make_plan(depth, "duplicate", layers=depth + 2))
    assert config.encoder is not None
    assert plan.encoder is not None
    config = replace(config.of_layers([0] * plan.layers), encoder=config.encoder.of_layers([0] * plan.encoder.layers))
    trained = choose(train, config, plan)
    segments, leaves = make_leaves(config, trained)
    trees = [
        unflatten_dict({x.path: jax.ShapeDtypeStruct(x.shape, jnp.float32) for x in leaves if x.trained == t})
        for t in (True, False)
    ]
    encoder = encoder_segments(config, trained)
    program = Program(config, segments, "float32", "none", output_tensor(config) in trained, encoder=encoder)
    read, write = (jax.ShapeDtypeStruct((1, 2, tokens), jnp.int32) for tokens in (48, 1))
    fields = write, write, write, write, jax.ShapeDtypeStruct(write.shape, jnp.float32), read, read, read

    def gradient(trained, frozen, *fields):
        return mean_gradient(trained, frozen, Batch(*fields[:5], Text(*fields[5:])), program)

    count = product_operations(gradient, *trees, *fields) / (2 * 48)
    assert count == pytest.approx(token_cost(config, leaves, 48, 1).total, rel=1e-12)


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("t5", {"stage": "sft"}, "--stage sft: a t5 is an encoder-decoder.*--stage pairs"),
        ("bart", {"sequence_length": 128, "train": "all"}, "takes out 7 spans, but the tokenizer has"),
        ("t5", {"train": "new"}, "the model has no growth.json"),
    ],
)
def test_what_a_run_cannot_be_made_of_is_refused(place, model, options, message):
    if "takes" in message:
        tiny_tokenizer(sentinels=3).save_pretrained(shutil.copytree(place / model, place / "few"))
        model = "few"
    with pytest.raises(InputError, match=message):
        train(settings(place, model, "refused", **options))
    assert not (place / "refused").exists()


def test_a_decoder_has_no_pairs(tmp_path):
    shutil.copytree(tiny("llama"), tmp_path / "llama")
    tiny_tokenizer().save_pretrained(tmp_path / "llama")
    write(tmp_path / "pairs.jsonl", [{"input": "a", "target": "b"}])
    with pytest.raises(InputError, match="--stage pairs: a llama has no encoder.*--stage sft"):
        train(settings(tmp_path, "llama", "run", stage="pairs", train="all"))
