"""Training a model whose layers are of different sizes, from nothing: by a profile's name, or a config.json of one."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.reader import open_checkpoint, read
from lesa_jax.demo import MODEL_DIRECTORY
from lesa_jax.models.config import read_config
from lesa_jax.profiles.base import profiled
from lesa_jax.profiles.run import profile
from lesa_jax.profiles.settings import ProfileSettings
from lesa_jax.training.job import make_train_job
from lesa_jax.training.run import train
from lesa_jax.training.settings import TrainSettings
from lesa_jax.training.sharding import check_mesh
from tests.support.settings import nest
from tests.support.training import finish, losses, rows, start, write_text

BASE = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "vocab_size": 4096,
    "max_position_embeddings": 128,
    "tie_word_embeddings": True,
    "rope_theta": 5000.0,
    "ffn_dim_divisor": 16,
    "eos_token_id": 0,
}
HEADS, WIDTHS = [8, 6, 8, 8, 6, 8], [256, 144, 240, 240, 144, 256]
OPTIONS = ["--init", "random", "--profile", "crown", "--sequence-length", "32", "--batch-size", "8"]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a base.json, a tokenizer beside it, and a text."""
    folder = tmp_path_factory.mktemp("profiles")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(MODEL_DIRECTORY / name, folder / name)
    (folder / "base.json").write_text(json.dumps(BASE))
    write_text(folder / "data.jsonl")
    return folder


def settings(place: Path, output: str, **changes) -> TrainSettings:
    options = {
        "data": str(place / "data.jsonl"),
        "output": place / output,
        "init": "random",
        "config": place / "base.json",
        "profile": "crown",
        "steps": 6,
        "batch_size": 8,
        "sequence_length": 32,
        "learning_rate": 1e-2,
        "save_every": 2,
        "keep": 9,
    }
    return nest(TrainSettings, **options | changes)


@pytest.fixture(scope="module")
def finished(place: Path) -> Path:
    train(settings(place, "whole"))
    return place / "whole"


def weights(run: Path) -> dict[str, bytes]:
    checkpoint = open_checkpoint(run / "final")
    return {name: read(checkpoint, name).tobytes() for name in checkpoint.entries}


def test_what_is_trained_has_the_profiles_sizes_and_learns(finished):
    final = open_checkpoint(finished / "final")
    model = read_config(final.config)
    assert [sizes.num_heads for sizes in model.sizes] == final.config["num_query_heads"] == HEADS
    assert [sizes.intermediate_size for sizes in model.sizes] == WIDTHS
    assert model.ropes[0] is not None
    assert (model.ropes[0].theta, model.max_position_embeddings) == (5000.0, 128)
    assert final.config["eos_token_id"] == 0
    shapes = {name: entry.spec.shape for name, entry in final.entries.items()}
    assert shapes["transformer.layers.1.ffn.proj_1.weight"] == (2 * 144, 64)
    assert shapes["transformer.layers.1.attn.qkv_proj.weight"] == (3 * 6 * 8, 64)
    found = losses(finished)
    assert found[0] == pytest.approx(np.log(4096), rel=0.05)
    assert found[-1] < found[0] - 1


def test_equal_layers_in_a_row_are_one_scan(place):
    job = make_train_job(settings(place, "unused"))
    assert [(segment.start, segment.width, segment.repeats) for segment in job.segments] == [
        (0, 1, 1),
        (1, 1, 1),
        (2, 1, 2),
        (4, 1, 1),
        (5, 1, 1),
    ]
    isotropic = make_train_job(settings(place, "unused", profile="isotropic"))
    assert [segment.repeats for segment in isotropic.segments] == [6]


def test_a_run_that_goes_on_is_the_same_to_the_bit(place, finished):
    shutil.copytree(finished, place / "broken")
    shutil.rmtree(place / "broken" / "final")
    for step in (4, 6):
        shutil.rmtree(place / "broken" / "checkpoints" / str(step))
    train(settings(place, "broken"))
    assert rows(place / "broken")[-1]["step"] == 6
    assert losses(place / "broken") == losses(finished)
    assert weights(place / "broken") == weights(finished)


@pytest.mark.slow
def test_a_config_that_lesa_profile_wrote_trains_alike(place, finished):
    """Where it says the same as the base and the profile."""
    config = place / "crown" / "config.json"
    options = {"layers": 6, "hidden_size": 64, "head_dim": 8, "kv_ratio": 1, "vocab_size": 4096, "ffn_divisor": 16}
    profile(ProfileSettings("crown", config=config, **options))
    written = json.loads(config.read_text())
    ours = profiled(BASE, "crown", None)
    differing = {key for key in ours if ours[key] != written[key]}
    assert differing == {"max_context_length", "rope_max_length", "rope_freq_constant", "eos_token_id"}
    config.write_text(json.dumps(written | {key: ours[key] for key in differing}))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(place / name, config.parent / name)
    train(settings(place, "written", config=config, profile=None))
    assert losses(place / "written") == losses(finished)


@pytest.mark.slow
def test_layer_norm_scaling_as_data_trains_as_it_does_folded_but_for_the_norms_own_steps(place):
    """Fresh models compute the same: in one the factors are in config.json, in the other in the norms' weights."""
    scaled = place / "scaled" / "config.json"
    scaled.parent.mkdir()
    scaled.write_text(json.dumps(profiled(BASE, "crown", None) | {"norm_scales": [(i + 1) ** -0.5 for i in range(6)]}))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(place / name, scaled.parent / name)
    train(settings(place, "as-data", config=scaled, profile=None, steps=2))
    train(settings(place, "folded", init="norm-scaling", steps=2))
    first, second = zip(losses(place / "as-data"), losses(place / "folded"), strict=True)
    assert first[0] == pytest.approx(first[1], rel=1e-6)
    assert second[0] != second[1]
    final = open_checkpoint(place / "as-data" / "final")
    assert np.abs(read(final, "transformer.layers.3.ffn_norm.weight") - 1).max() < 0.05
    with pytest.raises(InputError, match="norm_scales"):
        make_train_job(settings(place, "unused", config=scaled, profile=None, init="norm-scaling"))


def test_parameters_are_met(place):
    job = make_train_job(settings(place, "unused", parameters="600K"))
    counted = sum(np.prod(spec.shape) for spec in job.specs.values())
    assert counted == pytest.approx(600_000, rel=0.01)


def test_a_mesh_must_divide_every_layer(place):
    model = make_train_job(settings(place, "unused")).config
    with pytest.raises(InputError, match="tensor=4 does not divide the model's num_attention_heads 6"):
        check_mesh({"data": 1, "fsdp": 1, "expert": 1, "tensor": 4}, model, 8)


@pytest.mark.slow
def test_norms_over_all_heads_and_norm_scaling_train(place):
    olmo = BASE | {"model_type": "olmo2", "pad_token_id": 1}
    (place / "olmo.json").write_text(json.dumps(olmo))
    changes = {"config": place / "olmo.json", "init": "norm-scaling", "steps": 1}
    train(settings(place, "olmo", **changes))
    final = open_checkpoint(place / "olmo" / "final")
    assert final.config["qk_norm"] == "all"
    assert final.entries["transformer.layers.1.attn.q_norm.weight"].spec.shape == (48,)
    scaled = read(final, "transformer.layers.3.ffn_norm.weight")
    assert np.abs(scaled - 0.5).max() < 0.02


@pytest.mark.slow
def test_meshes_give_the_losses_of_one_device(place, finished):
    config, data = str(place / "base.json"), str(place / "data.jsonl")
    for mesh, devices in (("data=2,fsdp=2,tensor=2", 8), ("fsdp=4", 4)):
        output = place / f"run-{mesh}"
        options = ["--steps", "6", "--learning-rate", "1e-2", "--mesh", mesh, "--output", str(output)]
        finish(start("--config", config, "--data", data, *OPTIONS, *options, devices=devices))
        np.testing.assert_allclose(losses(output), losses(finished), rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"init": "checkpoint", "config": None, "model": "x"}, "--profile crown: is for fresh weights"),
        ({"profile": None, "parameters": "1M"}, "--parameters 1M: are met by moving a profile"),
        ({"parameters": "1K"}, "--parameters 1,000: not reachable"),
    ],
)
def test_options_that_cannot_be_are_refused_in_one_line(place, changes, message):
    with pytest.raises(InputError, match=message) as caught:
        make_train_job(settings(place, "unused", **changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"model_type": "bert"}, "model_type 'bert' in --config is no decoder that runs"),
        ({"model_type": "t5"}, "model_type 't5' in --config is no decoder that runs"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, "no plain rotations of whole heads"),
        ({"model_type": "mistral", "sliding_window": 8}, "this mistral has windows"),
        ({"num_hidden_layers": 2}, "--layers 2: crown goes through 3 points"),
    ],
)
def test_a_base_that_is_none_is_refused_in_one_line(entries, message):
    with pytest.raises(InputError, match=message) as caught:
        profiled(BASE | entries, "crown", None)
    assert "\n" not in str(caught.value)
