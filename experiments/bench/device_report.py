"""The tables of `device.py`: what was measured beside what a CPU computed, or beside the least that it can take."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from floors import BANDWIDTHS

from lesa_jax.training.peaks import peak_of

Rows = Sequence[Mapping[str, Any]]
Table = tuple[tuple[str, ...], list[tuple[str, ...]]]  # header and rows


@dataclass(frozen=True)
class Tolerance:
    """The largest relative difference from the CPU's figures that passes, and why it is that one."""

    value: float
    reason: str


# Rounding was measured between jax 0.10.2 and 0.11.2, and between AVX-512 and SSE 4.2 code, of one CPU.
PLAIN = Tolerance(1e-5, "CPUs differ by 2e-7; products in TF32 would by 5e-4 each")
AMPLIFIED = "AdamW's steps amplify rounding: CPUs differ by {}"
OTHER_SAMPLES = "signs of singular directions are the eigensolver's, and make other samples; five seeds differ by {}"
TOLERANCES = {
    "singular values, up_proj": Tolerance(1e-4, "what layer_svd promises"),
    "perplexity, demo": PLAIN,
    "perplexity, llama_pro": PLAIN,
    "perplexity, lesa_raw": Tolerance(2e-2, AMPLIFIED.format("2e-3")),
    "predictors' losses, lesa_raw": Tolerance(2e-3, AMPLIFIED.format("2e-4")),
    "norms of new matrices, lesa_raw": Tolerance(1e-2, AMPLIFIED.format("6e-4")),
    "perplexity, lesa_published": Tolerance(5e-2, OTHER_SAMPLES.format("3e-2")),
    "predictors' losses, lesa_published": Tolerance(5e-2, OTHER_SAMPLES.format("3e-2")),
    "norms of new matrices, lesa_published": Tolerance(0.25, OTHER_SAMPLES.format("0.12")),
    "loss, 20 steps": PLAIN,
    "grad_norm, 20 steps": Tolerance(1e-4, "CPUs differ by 2e-7; a norm has no mean over tokens to smooth it"),
}


def difference(measured: Sequence[float], stored: Sequence[float]) -> float:
    """The largest relative one; infinite between other numbers of figures, and where one is not finite."""
    if len(measured) != len(stored):
        return float("inf")
    apart = np.abs(np.subtract(measured, stored)) / np.abs(stored)
    return float(np.max(np.where(np.isfinite(apart), apart, np.inf)))


def passes(name: str, measured: Mapping[str, Sequence[float]], stored: Mapping[str, Sequence[float]]) -> bool:
    """Whether a figure was measured, and is the CPU's within its tolerance."""
    return name in measured and difference(measured[name], stored[name]) <= TOLERANCES[name].value


def parity_table(measured: Mapping[str, Sequence[float]], stored: Mapping[str, Sequence[float]]) -> Table:
    """Of lists the last figure is shown, and the largest difference."""
    rows = []
    for name, figures in stored.items():
        tolerance, found = TOLERANCES[name], measured.get(name)
        shown = ("not measured", "") if found is None else (f"{found[-1]:.7g}", f"{difference(found, figures):.1e}")
        verdict = "PASS" if passes(name, measured, stored) else "**FAIL**"
        rows.append((name, f"{figures[-1]:.7g}", *shown, f"{tolerance.value:g}", verdict, tolerance.reason))
    return ("float32", "CPU", "here", "difference", "tolerance", "", "why that tolerance"), rows


def rates_table(device: Mapping[str, Any]) -> Table:
    """What the device was seen to do at most, and its data sheet."""
    peak, bandwidth = peak_of(device["kind"]), BANDWIDTHS.get(device["kind"])
    rows = [
        ("bfloat16 products, TFLOP/s", f"{device['bfloat16'] / 1e12:.4g}", in_units(peak, 1e12)),
        ("float32 products in full precision, TFLOP/s", f"{device['float32'] / 1e12:.4g}", "-"),
        ("copies, TB/s read and written", f"{device['copy'] / 1e12:.4g}", in_units(bandwidth, 1e12)),
    ]
    return ("rate", "measured", "data sheet"), rows


def training_table(rows: Rows, device: Mapping[str, Any]) -> Table:
    """Measured steps beside their floors: by the data sheet, or by measured rates where there is none."""
    peak = peak_of(device["kind"])
    bandwidth = BANDWIDTHS.get(device["kind"], device["copy"])
    cells = []
    for row in rows:
        if "failed" in row:
            cells.append((row["case"], f"failed: {row['failed']}", *("",) * 9))
            continue
        tokens, step = row["sequences"] * row["tokens"], row["step"]
        floors = row["flops"] / (peak or device["bfloat16"]), row["nbytes"] / bandwidth
        cells.append(
            (
                row["case"],
                f"{row['sequences']} x {row['tokens']}",
                f"{step:.4g}",
                f"{tokens / step:.0f}",
                "-" if peak is None else f"{row['flops'] / step / peak:.1%}",
                *(f"{floor:.3g}" for floor in floors),
                f"{step / max(floors):.2f}",
                in_units(row["peak_memory"], 1e9),
                in_units(row["state"], 1e9),
                f"{row['compiling']:.1f}",
            )
        )
    header = ("bfloat16, of one device", "batch", "step, s", "tokens/s", "MFU", "floor by operations, s")
    more = ("floor by bytes, s", "step / floor", "peak memory, GB", "weights, moments, gradient, GB", "compiling, s")
    return (*header, *more), cells


def stages_table(rows: Rows, device: Mapping[str, Any]) -> Table:
    """LESA's stages beside the time of their operations as one large product in full float32 precision."""
    cells = []
    for row in rows:
        if "failed" in row:
            cells.append((row["case"], f"failed: {row['failed']}", "", "", ""))
            continue
        floor = row["flops"] / device["float32"] if "flops" in row else None
        ratio = ("", "") if floor is None else (f"{floor:.3g}", f"{row['seconds'] / floor:.2f}")
        compiling = f"{row['compiling']:.1f}" if "compiling" in row else ""
        cells.append((row["stage"], f"{row['seconds']:.4g}", *ratio, compiling))
    return ("stage, float32", "s", "floor, s", "taken / floor", "compiling, s"), cells


def in_units(value: float | None, unit: float) -> str:
    return "-" if value is None else f"{value / unit:.4g}"
