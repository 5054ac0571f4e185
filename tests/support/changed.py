"""Checkpoints that say something else than they did."""

import json

from safetensors.numpy import load_file, save_file


def changed_copy(folder, output, tensors=None, **entries):
    """The grown checkpoint with some tensors or entries changed."""
    output.mkdir()
    config = json.loads((folder / "config.json").read_text()) | entries
    (output / "config.json").write_text(json.dumps(config))
    weights = load_file(folder / "model.safetensors")
    if tensors:
        tensors(weights)
    save_file(weights, output / "model.safetensors", {"format": "pt"})
    return output
