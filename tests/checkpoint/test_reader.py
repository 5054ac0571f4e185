"""Reading checkpoints: exact bits, any number of files, and one line for whatever is wrong with them."""

import json
import os
import re
import struct
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.format import INDEX, WEIGHTS
from lesa_jax.checkpoint.integrity import verify
from lesa_jax.checkpoint.reader import check_unchanged, open_checkpoint, read, read_stack
from lesa_jax.families.fields import find_layers
from tests.support.tiny import save, tiny


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [(torch.bfloat16, ml_dtypes.bfloat16), (torch.float16, np.float16), (torch.float32, np.float32)],
)
def test_every_bit_of_every_tensor(tmp_path, dtype, expected):
    save(tmp_path, "llama", dtype)
    checkpoint = open_checkpoint(tmp_path)
    reference = load_file(tmp_path / WEIGHTS)
    assert checkpoint.entries.keys() == reference.keys()
    for name, tensor in reference.items():
        array = read(checkpoint, name)
        assert array.dtype == expected
        assert array.tobytes() == tensor.contiguous().view(torch.uint8).numpy().tobytes()


def test_sharded_equals_single(tmp_path):
    save(tmp_path, "mixtral", max_shard_size="100KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 5
    whole, sharded = open_checkpoint(tiny("mixtral")), open_checkpoint(tmp_path)
    assert whole.stacks == sharded.stacks
    for stack in whole.stacks:
        np.testing.assert_array_equal(read_stack(whole, stack), read_stack(sharded, stack))


def test_a_single_file_counts_and_an_index_beside_it_does_not(tmp_path):
    """As for transformers: shards of another model beside it would give another loss."""
    save(tmp_path, "llama", max_shard_size="20KB")
    tensors = load_file(save(tmp_path / "other", "llama") / WEIGHTS)
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, tmp_path / WEIGHTS, {"format": "pt"})
    checkpoint = open_checkpoint(tmp_path)
    reference = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).state_dict()
    assert checkpoint.files == [tmp_path / WEIGHTS]
    for name in checkpoint.entries:
        np.testing.assert_array_equal(read(checkpoint, name), reference[name].numpy())


def in_place(file: Path) -> None:
    with file.open("r+b") as stream:
        stream.seek(-8, os.SEEK_END)
        stream.write(b"01234567")


def replaced(file: Path) -> None:
    data = file.read_bytes()
    file.unlink()
    file.write_bytes(data)


@pytest.mark.parametrize(
    "change", [in_place, replaced, lambda file: os.truncate(file, 9000), lambda file: file.unlink()]
)
def test_a_file_that_changes_after_it_was_opened_is_not_read_any_more(tmp_path, change):
    """A mapped file that is truncated would end the process with SIGBUS."""
    checkpoint = open_checkpoint(save(tmp_path, "llama"))
    check_unchanged(checkpoint)
    change(tmp_path / WEIGHTS)
    for name in checkpoint.entries:
        with pytest.raises(InputError, match="changed while it was in use|cannot be read any more"):
            read(checkpoint, name)
    with pytest.raises(InputError, match="changed while it was in use"):
        check_unchanged(checkpoint)


def test_some_rows_of_a_tensor():
    checkpoint = open_checkpoint(tiny("llama"))
    name = "model.layers.1.mlp.up_proj.weight"
    np.testing.assert_array_equal(read(checkpoint, name, 5, 7), read(checkpoint, name)[5:12])


def test_stack_rows_are_layers_and_experts():
    checkpoint = open_checkpoint(tiny("mixtral"))
    (stack,) = [s for s in checkpoint.stacks if s.template.endswith("experts.*.w2.weight")]
    array = read_stack(checkpoint, stack)
    assert array.shape == (6, 12, 32, 48)
    name = "model.layers.3.block_sparse_moe.experts.11.w2.weight"
    np.testing.assert_array_equal(array[3, 11], read(checkpoint, name))


def test_a_stack_of_single_numbers_has_them(tmp_path):
    """As GPT-2's masked_bias, one number a layer."""
    numbers = {f"h.{layer}.attn.masked_bias": torch.tensor(-1.0 - layer) for layer in range(3)}
    save_file(numbers, tmp_path / WEIGHTS)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2", "n_layer": 3}))
    checkpoint = open_checkpoint(tmp_path)
    (stack,) = checkpoint.stacks
    assert read_stack(checkpoint, stack).tolist() == [-1.0, -2.0, -3.0]


def test_opening_reads_no_weights(tmp_path):
    """A file of 4 GB whose data was never written opens at once and takes no memory."""
    (tmp_path / "config.json").write_text('{"num_hidden_layers": 1}')
    header = json.dumps({"l.0.w": {"dtype": "F32", "shape": [1 << 30], "data_offsets": [0, 4 << 30]}}).encode()
    with (tmp_path / WEIGHTS).open("wb") as stream:
        stream.write(struct.pack("<Q", len(header)) + header)
        stream.truncate(8 + len(header) + (4 << 30))
    assert open_checkpoint(tmp_path).parameters == 1 << 30


def test_hub_cache_links_are_followed_and_others_are_not(tmp_path):
    snapshot = tmp_path / "models--org--name" / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    blobs = tmp_path / "models--org--name" / "blobs"
    blobs.mkdir()
    for number, file in enumerate(("config.json", WEIGHTS)):
        (blobs / f"b{number}").write_bytes((tiny("llama") / file).read_bytes())
        (snapshot / file).symlink_to(f"../../blobs/b{number}")
    assert open_checkpoint(snapshot).entries
    (snapshot / WEIGHTS).unlink()
    (snapshot / WEIGHTS).symlink_to(tiny("llama") / WEIGHTS)
    with pytest.raises(InputError, match="outside the checkpoint's folder"):
        open_checkpoint(snapshot)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_one_bad_number_is_found_and_its_tensor_named(tmp_path, dtype, value):
    tensors = {"a.weight": torch.full((3000, 700), 1.5, dtype=dtype), "b.weight": torch.zeros(5, dtype=dtype)}
    save_file(tensors, tmp_path / WEIGHTS)
    (tmp_path / "config.json").write_text("{}")
    verify(open_checkpoint(tmp_path))
    tensors["a.weight"][2999, 699] = value
    save_file(tensors, tmp_path / WEIGHTS)
    with pytest.raises(InputError, match=re.escape("tensor a.weight holds NaN or Inf")):
        verify(open_checkpoint(tmp_path))


def edit_header(file: Path, change) -> None:
    """Rewrites a safetensors header and keeps the data."""
    raw = file.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])


def shift_end(header):
    last = max((v for k, v in header.items() if k != "__metadata__"), key=lambda v: v["data_offsets"][1])
    last["data_offsets"][1] += 4096


def overlap(header):
    first, second = sorted((v for k, v in header.items() if k != "__metadata__"), key=lambda v: v["data_offsets"])[:2]
    second["data_offsets"] = first["data_offsets"]


def truncate(folder: Path) -> None:
    os.truncate(folder / WEIGHTS, (folder / WEIGHTS).stat().st_size // 2)


def set_header_length(folder: Path) -> None:
    raw = bytearray((folder / WEIGHTS).read_bytes())
    raw[:8] = struct.pack("<Q", 1 << 60)
    (folder / WEIGHTS).write_bytes(raw)


def write_index(folder: Path, file: str) -> None:
    names = list(open_checkpoint(folder).entries)
    (folder / WEIGHTS).rename(folder / "elsewhere.safetensors")
    (folder / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(names, file)}))


def index_without_map(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / INDEX).write_text("{}")


def only_pickles(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")


def set_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def rename_tensors(folder: Path, change) -> None:
    tensors = {change(name): tensor for name, tensor in load_file(folder / WEIGHTS).items()}
    tensors.pop(None, None)
    save_file(tensors, folder / WEIGHTS)


def make_fp8(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    tensors["model.layers.1.mlp.up_proj.weight"] = torch.zeros(48, 32, dtype=torch.float8_e4m3fn)
    save_file(tensors, folder / WEIGHTS)


BAD = {
    "no config": (lambda f: (f / "config.json").unlink(), "config.json: not found"),
    "broken config": (lambda f: (f / "config.json").write_text("{"), "cannot be read as JSON"),
    "config is a list": (lambda f: (f / "config.json").write_text("[]"), "expected a JSON object"),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "neither model.safetensors"),
    "pickles": (only_pickles, "pytorch_model.bin, a pickle.*save_pretrained"),
    "truncated": (truncate, "truncated or corrupted"),
    "empty file": (lambda f: (f / WEIGHTS).write_bytes(b""), "truncated or corrupted"),
    "header length": (set_header_length, "truncated or corrupted"),
    "offset past the end": (lambda f: edit_header(f / WEIGHTS, shift_end), "truncated or corrupted"),
    "overlap": (lambda f: edit_header(f / WEIGHTS, overlap), "truncated or corrupted"),
    "missing shard": (lambda f: write_index(f, "model-00001-of-00002.safetensors"), "shard .* is missing"),
    "escaping shard": (lambda f: write_index(f, "../elsewhere.safetensors"), "path outside the folder"),
    "absolute shard": (lambda f: write_index(f, "/etc/passwd"), "path outside the folder"),
    "index without map": (index_without_map, "no weight_map"),
    "gptq": (lambda f: set_config(f, quantization_config={"quant_method": "gptq"}), "quantised .gptq.*dequantise"),
    "fp8": (make_fp8, "up_proj.weight .F8_E4M3. is quantised; dequantise"),
    "bitsandbytes": (lambda f: rename_tensors(f, lambda n: f"{n}.absmax"), "is quantised"),
    "layer count": (lambda f: set_config(f, num_hidden_layers=8), "declares 8 layers but the tensors .* have 6"),
    "fewer declared": (lambda f: set_config(f, num_hidden_layers=4), "declares 4 layers but the tensors .* have 6"),
    "no layer count": (lambda f: (f / "config.json").write_text("{}"), "cannot tell how many layers"),
    "missing layer": (
        lambda f: rename_tensors(f, lambda n: None if ".3." in n else n),
        r"no tensors named model.layers.3.\*",
    ),
    "no layer numbers": (
        lambda f: rename_tensors(f, lambda n: re.sub(r"\.(\d+)\.", r".x\1.", n)),
        "carry no layer numbers",
    ),
}


def open_layers(folder: Path) -> str:
    checkpoint = open_checkpoint(folder)
    return find_layers(checkpoint.config, checkpoint.stacks)


@pytest.mark.parametrize("case", BAD)
def test_bad_checkpoints_end_in_one_line(tmp_path, case):
    spoil, message = BAD[case]
    save(tmp_path, "llama")
    spoil(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        open_layers(tmp_path)
    assert "\n" not in str(caught.value)


def test_missing_folder():
    with pytest.raises(InputError, match="no such folder"):
        open_checkpoint("does/not/exist")


def test_tensor_of_the_index_that_no_shard_holds(tmp_path):
    save(tmp_path, "llama", max_shard_size="100KB")
    index = json.loads((tmp_path / INDEX).read_text())
    index["weight_map"]["model.extra.weight"] = next(iter(index["weight_map"].values()))
    (tmp_path / INDEX).write_text(json.dumps(index))
    with pytest.raises(InputError, match=r"model.extra.weight is in .* but not in the file"):
        open_checkpoint(tmp_path)
