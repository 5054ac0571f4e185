"""LESA as published, in PyTorch: the rival of `bench_expand.py` and the reference of the parity tests.

Reimplements arXiv 2502.13794 (public code: yangyifei729/LESA, train_LESA.ipynb and load_LESA.ipynb): SVD of the
concatenated layers, a materialised sample array, a Python loop of batches. It is kinder to the published code than the
notebook itself: batches are rows taken by a random permutation, without the DataLoader's collation row by row, and one
weight kind is in memory at a time instead of the model.

    python experiments/bench/torch_lesa.py --model DIR --output DIR --layers 18

expands a llama-like checkpoint (safetensors) and prints seconds by stage and peak memory as JSON. About 115 s and
2.3 GB on two cores for 12 layers, width 1024, feed-forward 2816, float32.
"""

import argparse
import json
import resource
import shutil
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

KINDS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
KINDS += ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")


def decompose(layers: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """U [out, r], S [r] and V [L, r, in] of the matrices [out, in] side by side."""
    u, s, vt = torch.linalg.svd(torch.cat(list(layers), dim=1), full_matrices=False)
    return u, s, torch.stack(vt.split(layers[0].shape[1], dim=1))


def make_samples(v: Tensor) -> tuple[Tensor, Tensor]:
    """x [(L-2)*r, 2*in], rows of both neighbours, and y [(L-2)*r, in], the row between them."""
    x = torch.cat([v[:-2], v[2:]], dim=2)
    return x.flatten(0, 1), v[1:-1].flatten(0, 1)


def make_predictor(features: int, hidden: int = 256) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(2 * features, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, features)
    )


def predictor_loss(p: Tensor, y: Tensor, norm_weight: float) -> Tensor:
    return (1 - norm_weight) * (p - y).square().mean() + norm_weight * (p.norm() - y.norm()).square()


def train(
    predictor: nn.Module, x: Tensor, y: Tensor, batches: Iterable[Tensor], norm_weight: float = 5e-4
) -> list[float]:
    """Trains on the samples that each batch of indices names; returns the loss of every step."""
    optimizer = torch.optim.AdamW(predictor.parameters(), lr=1e-3)
    losses = []
    for batch in batches:
        optimizer.zero_grad()
        loss = predictor_loss(predictor(x[batch]), y[batch], norm_weight)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def shuffled_batches(count: int, epochs: int = 10, size: int = 64) -> Iterable[Tensor]:
    """Every sample once an epoch in a fresh order, the last batch of an epoch partial."""
    for _ in range(epochs):
        yield from torch.randperm(count).split(size)


@torch.no_grad()
def new_matrices(predictor: nn.Module, u: Tensor, s: Tensor, v: Tensor, gaps: Sequence[int]) -> list[Tensor]:
    return [(u * s) @ predictor(torch.cat([v[gap], v[gap + 1]], dim=1)) for gap in gaps]


def expand(model: Path, output: Path, layers: int, epochs: int = 10, seed: int = 0) -> dict[str, float]:
    """Writes a deeper copy of a llama-like checkpoint; returns seconds by stage.

    New layers take the top gaps, norm weights come from layer 0; the checkpoint must be one file.
    """
    torch.manual_seed(seed)
    seconds: dict[str, float] = {}
    clock = time.perf_counter()

    def lap(stage: str) -> None:
        nonlocal clock
        seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - clock
        clock = time.perf_counter()

    config = json.loads((model / "config.json").read_text())
    depth = config["num_hidden_layers"]
    gaps = range(depth - 1 - (layers - depth), depth - 1)
    position = [layer + sum(gap < layer for gap in gaps) for layer in range(depth)]
    tensors: dict[str, Tensor] = {}
    with safe_open(model / "model.safetensors", "pt") as file:
        for kind in KINDS:
            weights = [file.get_tensor(f"model.layers.{layer}.{kind}.weight") for layer in range(depth)]
            lap("read")
            u, s, v = decompose([weight.float() for weight in weights])
            lap("svd")
            x, y = make_samples(v)
            predictor = make_predictor(v.shape[2])
            train(predictor, x, y, shuffled_batches(len(x), epochs))
            lap("train")
            for gap, matrix in zip(gaps, new_matrices(predictor, u, s, v, gaps), strict=True):
                tensors[f"model.layers.{position[gap] + 1}.{kind}.weight"] = matrix.to(weights[0].dtype)
            lap("predict")
        for name in file.keys():  # noqa: SIM118 (not a mapping)
            prefix, dot, rest = name.removeprefix("model.layers.").partition(".")
            if not name.startswith("model.layers."):
                tensors[name] = file.get_tensor(name)
                continue
            tensors[f"model.layers.{position[int(prefix)]}{dot}{rest}"] = file.get_tensor(name)
            if prefix == "0" and "norm" in rest:
                for gap in gaps:
                    tensors[f"model.layers.{position[gap] + 1}.{rest}"] = file.get_tensor(name).clone()
        lap("read")
    shutil.copytree(model, output, ignore=shutil.ignore_patterns("*.safetensors"))
    save_file(tensors, output / "model.safetensors", {"format": "pt"})
    (output / "config.json").write_text(json.dumps(config | {"num_hidden_layers": layers}, indent=2))
    lap("write")
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--layers", type=int, required=True)
    parser.add_argument("--epochs", type=int, default=10)
    arguments = parser.parse_args()
    seconds = expand(arguments.model, arguments.output, arguments.layers, arguments.epochs)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "total_seconds": sum(seconds.values()), "peak_bytes": peak}))


if __name__ == "__main__":
    main()
