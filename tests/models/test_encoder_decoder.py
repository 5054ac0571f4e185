"""T5 and BART against transformers/torch: padded and packed pairs, gradients, and what is refused."""

import json
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers as hf
from flax.traverse_util import flatten_dict
from transformers.models.t5.modeling_t5 import T5Attention

from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.reader import open_checkpoint
from lesa_jax.families.stacks import find_stacks
from lesa_jax.models import encoder_decoder
from lesa_jax.models.config import read_config
from lesa_jax.models.decoder import head
from lesa_jax.models.encoder_decoder import Text, distance_rows, forward, shifted_right, whole_rows
from lesa_jax.models.load import load_model
from lesa_jax.models.losses import token_nll
from tests.support.tiny import CONFIGS, ENCODER_DECODERS, tiny, torch_pair_logits

RNG = np.random.default_rng(0)
SOURCE = RNG.integers(3, 64, (2, 19))
COUNTED = np.arange(19)[None] < np.array([[19], [11]])
TARGET = RNG.integers(3, 64, (2, 13))
logits = jax.jit(encoder_decoder.logits, static_argnums=(3, 4))
FIRST = ("t5", "bart")  # of seconds each
families = pytest.mark.parametrize(
    "family", [pytest.param(name, marks=[] if name in FIRST else [pytest.mark.slow]) for name in ENCODER_DECODERS]
)


def torch_model(family: str) -> Any:
    make = hf.AutoModelForSeq2SeqLM
    return make.from_pretrained(tiny(family), dtype=torch.float32, attn_implementation="eager").eval()


@families
def test_padded_pairs_have_the_logits_of_transformers(family):
    expected = torch_pair_logits(tiny(family), *map(torch.tensor, (SOURCE, COUNTED.astype(int), TARGET)))
    params, config = load_model(tiny(family))
    source = whole_rows(jnp.asarray(SOURCE), jnp.asarray(COUNTED))
    ours = logits(params, source, whole_rows(jnp.asarray(TARGET)), config)
    np.testing.assert_allclose(ours, expected.numpy(), atol=1e-4)
    assert expected.std() > 0.1  # of tied T5 the head's scale makes them small


@families
def test_packed_pairs_have_the_logits_of_single_ones(family):
    """Two pairs in one row, with padding at the end of both texts."""
    params, config = load_model(tiny(family))
    packed = logits(params, packed_text(SOURCE[:1], 8, 17), packed_text(TARGET[:1], 5, 11), config)[0]
    for source, target in (((0, 8), (0, 5)), ((8, 17), (5, 11))):
        texts = (whole_rows(jnp.asarray(x[:1, slice(*at)])) for x, at in ((SOURCE, source), (TARGET, target)))
        alone = logits(params, *texts, config)[0]
        np.testing.assert_allclose(packed[slice(*target)], alone, atol=2e-6 * np.abs(alone).max())


def packed_text(tokens, second: int, stop: int) -> Text:
    """A row of two texts: the second begins at `second`, padding at `stop`."""
    place = np.arange(tokens.shape[1])
    documents = np.where(place < second, 1, np.where(place < stop, 2, 0))
    positions = np.where(place < second, place, place - second)
    return Text(*(jnp.asarray(x) for x in (tokens, documents[None], positions[None])))


@pytest.mark.parametrize(
    "family", ["t5", *(pytest.param(name, marks=pytest.mark.slow) for name in ("t5_gated", "bart"))]
)
def test_loss_and_gradients_are_those_of_torch(family):
    params, config = load_model(tiny(family))
    targets = jnp.asarray(TARGET)
    source, target = whole_rows(jnp.asarray(SOURCE), jnp.asarray(COUNTED)), whole_rows(shifted_right(targets, config))

    def loss_of(params):
        return token_nll(forward(params, source, target, config), head(params, config), targets).mean()

    loss, gradient = jax.jit(jax.value_and_grad(loss_of))(params)
    model = torch_model(family)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    expected = model(
        input_ids=torch.tensor(SOURCE), attention_mask=torch.tensor(COUNTED.astype(int)), labels=torch.tensor(TARGET)
    ).loss
    expected.backward()
    np.testing.assert_allclose(loss, expected.detach(), rtol=1e-5)
    found = {".".join(path): np.asarray(array) for path, array in flatten_dict(gradient).items()}
    compared = 0
    for name, parameter in model.named_parameters():
        ours, theirs = gradient_of(found, name), parameter.grad.numpy()
        if "embed_positions" in name or "shared" in name:  # torch gives the row of padding none
            ours, theirs = np.array(ours), theirs.copy()
            ours[model.config.pad_token_id] = theirs[model.config.pad_token_id] = 0
        error = np.linalg.norm(ours - theirs)
        assert error <= 1e-3 * np.linalg.norm(theirs) + 1e-7, name
        compared += 1
    assert compared > 60


def gradient_of(found: dict[str, np.ndarray], name: str) -> np.ndarray:
    """Of one tensor: from its own leaf, or from that of its stack, whose number is the first in the name."""
    if name in found:
        return found[name]
    parts = name.split(".")
    at = next(place for place, part in enumerate(parts) if part.isdecimal())
    return found[".".join(parts[:at] + parts[at + 1 :])][int(parts[at])]


@pytest.mark.parametrize("decoder", [False, True])
def test_the_table_of_distances_is_read_as_in_transformers(decoder):
    """At all distances, of which some lie at the very edge of a bucket."""
    config = read_config(CONFIGS["t5"]().to_dict())
    stack = config if decoder else config.encoder
    assert stack is not None
    ahead = torch.arange(1500)[None, :] - torch.arange(1500)[:, None]
    expected = T5Attention._relative_position_bucket(ahead, not decoder, 32, 128).numpy()
    earlier = np.tril(np.ones_like(expected)) if decoder else 1  # what comes later is masked
    np.testing.assert_array_equal(distance_rows(1500, stack) * earlier, expected * earlier)


@families
def test_half_precision_stays_near(family):
    """As near as torch's."""
    inputs = [torch.tensor(x) for x in (SOURCE, COUNTED.astype(int), TARGET)]
    exact = torch_pair_logits(tiny(family), *inputs).numpy()
    model: Any = hf.AutoModelForSeq2SeqLM.from_pretrained(tiny(family), dtype=torch.bfloat16)
    with torch.no_grad():
        theirs = model(input_ids=inputs[0], attention_mask=inputs[1], decoder_input_ids=inputs[2]).logits.float()
    params, config = load_model(tiny(family))
    source = whole_rows(jnp.asarray(SOURCE), jnp.asarray(COUNTED))
    rough = logits(params, source, whole_rows(jnp.asarray(TARGET)), config, jnp.bfloat16)
    assert rough.dtype == jnp.bfloat16
    ours, reference = (
        np.sqrt(np.mean((np.asarray(x, np.float32) - exact) ** 2)) for x in (rough.astype(jnp.float32), theirs)
    )
    assert ours <= 1.5 * reference + 1e-3


def test_old_copies_and_tables_that_nobody_reads_are_left_alone(tmp_path):
    """The first T5 checkpoints hold the embedding four times, and a table for distances between two texts."""
    from safetensors.numpy import load_file, save_file

    folder = shutil.copytree(tiny("t5"), tmp_path / "old")
    tensors = load_file(folder / "model.safetensors")
    for name in ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight"):
        tensors[name] = tensors["shared.weight"].copy()
    tensors["decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"] = np.ones((32, 4), np.float32)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (old, config), (new, _) = load_model(folder), load_model(tiny("t5"))
    texts = whole_rows(jnp.asarray(SOURCE)), whole_rows(jnp.asarray(TARGET))
    np.testing.assert_array_equal(logits(old, *texts, config), logits(new, *texts, config))


@pytest.mark.parametrize(
    ("family", "change", "said"),
    [
        ("t5", {"decoder_start_token_id": None}, "decoder_start_token_id is missing.*add it"),
        ("t5", {"decoder_start_token_id": 64}, "decoder_start_token_id is 64; expected 0 to 63"),
        ("t5", {"feed_forward_proj": "gated-swoosh"}, "feed_forward_proj 'gated-swoosh' is not implemented"),
        (
            "t5",
            {"relative_attention_num_buckets": 30},
            "num_buckets is 30; expected a multiple of 4",
        ),
        ("t5", {"num_decoder_layers": 6}, r"decoder.block.*config.json asks for"),
        ("t5", {"relative_attention_num_buckets": 16}, "relative_attention_bias.*config.json asks for"),
        ("t5", {"feed_forward_proj": "gated-gelu"}, "DenseReluDense.wi_0.weight is missing"),
        ("bart", {"decoder_ffn_dim": 44}, "fc1.*config.json asks for"),
        ("bart", {"decoder_start_token_id": None}, "decoder_start_token_id is missing"),
        ("bart", {"activation_function": "swoosh"}, "activation_function 'swoosh' is not implemented"),
    ],
)
def test_a_config_that_contradicts_its_tensors_is_refused(tmp_path, family, change, said):
    folder = shutil.copytree(tiny(family), tmp_path / "bad")
    config = json.loads((folder / "config.json").read_text()) | change
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=said) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


def test_a_bart_without_its_head_is_read_by_its_own_names(tmp_path):
    """As the base model writes it: no `model.`, and no bias of the logits, which is then zero."""
    torch.manual_seed(0)
    hf.BartModel(CONFIGS["bart"]()).save_pretrained(tmp_path / "bare")
    params, config = load_model(tmp_path / "bare")
    inputs = [torch.tensor(x) for x in (SOURCE, COUNTED.astype(int), TARGET)]
    source = whole_rows(jnp.asarray(SOURCE), jnp.asarray(COUNTED))
    ours = logits(params, source, whole_rows(jnp.asarray(TARGET)), config)
    np.testing.assert_allclose(ours, torch_pair_logits(tmp_path / "bare", *inputs).numpy(), atol=1e-4)
    checkpoint = open_checkpoint(tmp_path / "bare")
    assert find_stacks(checkpoint.config, checkpoint.stacks) == ("encoder.layers.", "decoder.layers.")
