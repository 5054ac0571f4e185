"""Every family with a forward pass: loss, gradients, growth, frozen training, export and sharding, against torch."""

import functools
import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers as hf
from flax.traverse_util import flatten_dict

from lesa_jax.checkpoint.names import parse
from lesa_jax.checkpoint.reader import load_tree, open_checkpoint, read, read_bytes
from lesa_jax.models.config import read_config
from lesa_jax.models.decoder import logits
from lesa_jax.models.load import load_model
from lesa_jax.models.parts import embedding_tensor
from lesa_jax.planning.record import read_growth
from lesa_jax.training.step import mean_gradient
from tests.support.devices import environment_of
from tests.support.family_runs import STEPS, place_of
from tests.support.growth import TOKENS, grow
from tests.support.packed import packed
from tests.support.tiny import RUNNING, stored_buffers, tiny, torch_logits
from tests.support.trees import by_name, pieces

SLOW = pytest.mark.slow
QUICKLY = ("gemma3", "gpt_neox")  # of every kind of switch one; the others in the second step


def one_after_the_other(*names):
    """All running families, of which only these are quick enough for the first step."""
    return pytest.mark.parametrize("family", [n if n in names else pytest.param(n, marks=SLOW) for n in RUNNING])


@one_after_the_other(*QUICKLY)
def test_loss_and_gradients_of_packed_rows_are_those_of_torch_on_single_documents(tmp_path, family):
    (trained, frozen), program, leaves, _, _ = pieces(family, "all", None)
    batch = packed(program.config.vocab_size)
    losses, count, gradient = jax.jit(functools.partial(mean_gradient, program=program))(trained, frozen, batch)
    model = hf.AutoModelForCausalLM.from_pretrained(tiny(family), dtype=torch.float32, attn_implementation="eager")
    total = torch.zeros(())
    for row in range(batch.tokens.shape[1]):
        for start, stop in ((0, 10), (10, 21)):
            tokens, targets = (torch.tensor(np.array(x[0, row : row + 1, start:stop])).long() for x in batch_ids(batch))
            nll = torch.nn.functional.cross_entropy(model(tokens).logits[0], targets[0], reduction="none")
            total = total + (nll * torch.tensor(np.array(batch.weights[0, row, start:stop]))).sum()
    mean = total / float(count)
    mean.backward()
    np.testing.assert_allclose(losses.nll, mean.detach(), rtol=1e-5)
    expected = gradients(model, tmp_path)
    compared = {name: array.copy() for name, array in by_name(gradient, leaves).items()}
    assert compared.keys() == expected.keys()
    for name in compared:
        if name == embedding_tensor(program.config):  # the row of padding has no gradient there
            padding = model.config.pad_token_id
            compared[name][padding] = expected[name][padding] = 0
        error = np.linalg.norm(compared[name] - expected[name])
        assert error <= 1e-3 * np.linalg.norm(expected[name]) + 1e-7, name


def gradients(model, folder):
    """Of a torch model, under the names that its tensors have in a checkpoint: in the model experts are one tensor."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.grad)
        for buffer in stored_buffers(model):
            buffer.zero_()
    model.save_pretrained(folder)
    checkpoint = open_checkpoint(folder)
    return {name: read(checkpoint, name).copy() for name in checkpoint.entries}


def batch_ids(batch):
    return batch.tokens, batch.targets


@one_after_the_other(*RUNNING)
def test_a_tree_is_the_checkpoint_to_the_bit(family):
    checkpoint = open_checkpoint(tiny(family))
    tree = flatten_dict(load_tree(checkpoint), sep=".")
    for name, entry in checkpoint.entries.items():
        _, numbers = parse(name)
        stack = next(stack for stack in checkpoint.stacks if name in stack.names())
        row = tuple(number - first for number, first in zip(numbers, stack.starts, strict=True))
        assert tree[".".join(stack.path)][row].tobytes() == bytes(read_bytes(checkpoint, entry))


@one_after_the_other("gemma2", "gpt_neox")
def test_half_precision_stays_near(family):
    """As near as torch's: these models have logits of about one, which six layers round to about 0.02."""
    params, config = load_model(tiny(family))
    exact = torch_logits(tiny(family), TOKENS).numpy()
    rough = np.asarray(logits(params, jnp.asarray(TOKENS), config, jnp.bfloat16).astype(jnp.float32))
    model = hf.AutoModelForCausalLM.from_pretrained(tiny(family), dtype=torch.bfloat16, attn_implementation="eager")
    with torch.no_grad():
        theirs = model(torch.tensor(TOKENS)).logits.float().numpy()
    ours, reference = (np.sqrt(np.mean((found - exact) ** 2)) for found in (rough, theirs))
    assert ours <= min(2e-2, 1.5 * reference + 1e-3)


@SLOW
@pytest.mark.parametrize("method", ["lesa_published", "llama_pro"])
@pytest.mark.parametrize("family", RUNNING)
def test_what_is_grown_computes_here_what_it_computes_in_transformers(tmp_path, family, method):
    grow(tiny(family), tmp_path / "out", method)
    expected = torch_logits(tmp_path / "out", TOKENS).numpy()
    ours = logits(*swapped(tmp_path / "out"))
    check_near(ours, expected, family)
    before = torch_logits(tiny(family), TOKENS).numpy()
    assert np.array_equal(before, expected) == (method == "llama_pro")


def check_near(ours, expected, family: str):
    """Logits to 1e-4. OLMo 2 and 3 norm what a layer adds, which makes the rounding of new layers, that add little,
    larger: of 3,072 logits one or another is off by more, their root mean square is not."""
    if family in ("olmo2", "olmo3"):
        assert np.sqrt(np.mean((np.asarray(ours) - expected) ** 2)) < 1e-4
    else:
        np.testing.assert_allclose(ours, expected, atol=1e-4)


def swapped(folder: Path):
    params, config = load_model(folder)
    return params, jnp.asarray(TOKENS), config


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A frozen run of every family on eight devices and on one, each in a process of its own."""
    folder = tmp_path_factory.mktemp("runs")
    for name in RUNNING:
        place_of(folder, name)
    found = {}
    for devices in (8, 1):
        env = environment_of(devices)
        command = [sys.executable, "-m", "tests.support.family_runs", str(folder), *RUNNING]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        found[devices] = json.loads(done.stdout.splitlines()[-1])
    return folder, found


@SLOW
@pytest.mark.parametrize("family", RUNNING)
def test_eight_devices_give_the_losses_of_one(runs, family):
    _, found = runs
    assert len(found[1][family]) == STEPS
    np.testing.assert_allclose(found[8][family], found[1][family], rtol=1e-5)


@SLOW
@pytest.mark.parametrize("family", RUNNING)
def test_a_frozen_run_changes_new_tensors_only_and_transformers_loads_what_it_exports(runs, family):
    folder, _ = runs
    grown, final = (open_checkpoint(folder / family / place) for place in ("grown", "run-1/final"))
    new = read_growth(grown.folder, read_config(grown.config).num_layers).plan.new_layers
    prefix = next(stack.prefix for stack in grown.stacks if stack.sizes)
    for name, entry in grown.entries.items():
        inside = name.startswith(prefix) and int(name.removeprefix(prefix).split(".")[0]) in new
        same = read_bytes(final, final.entries[name]) == read_bytes(grown, entry)
        assert same != inside or (inside and not np.any(read(grown, name) - read(final, name)) and "bias" in name), name
    _, info = hf.AutoModelForCausalLM.from_pretrained(final.folder, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    expected = torch_logits(final.folder, TOKENS).numpy()
    check_near(logits(*swapped(final.folder)), expected, family)
