"""Data sheets by exact names."""

import jax
import pytest

from lesa_jax.training.cost import device_peak
from lesa_jax.training.peaks import PEAKS, peak_of


@pytest.mark.parametrize(
    ("kind", "tera"),
    [
        ("NVIDIA L4", 121),
        ("NVIDIA L40", 181),
        ("NVIDIA L40S", 362),
        ("NVIDIA A10", 125),
        ("NVIDIA A10G", 70),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756.5),
        ("NVIDIA GH200 480GB", 989.4),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("NVIDIA RTX A6000", 154.8),
        ("NVIDIA RTX 6000 Ada Generation", 364.2),
        ("AMD Instinct MI300X", 1307.4),
        ("TPU v4", 275),
        ("TPU v5 lite", 197),
        ("TPU v6 lite", 918),
    ],
)
def test_each_device_has_its_own_rate(kind, tera):
    assert peak_of(kind) == pytest.approx(tera * 1e12)


@pytest.mark.parametrize("known", PEAKS)
def test_a_longer_or_a_shorter_name_is_another_device(known):
    others = {f"{known} Mini", f"{known}X", known[:-1]} - PEAKS.keys()
    assert [peak_of(other) for other in others] == [None] * len(others)


def test_a_cpu_has_none():
    assert jax.default_backend() == "cpu"
    assert device_peak() is None
