"""What devices can do at most, by the names that JAX has for them."""

_T = 1e12

# Dense bfloat16 operations a second of one JAX device, products summed in float32, from the vendors' data sheets; where
# these name the rate with sparsity, half of it. A device that has another name is another device: an L40S is no L4, and
# an H100 on a PCIe card is slower than one on a board.
PEAKS = {
    "TPU v4": 275 * _T,
    "TPU v5 lite": 197 * _T,
    "TPU v5e": 197 * _T,
    "TPU v5": 459 * _T,
    "TPU v5p": 459 * _T,
    "TPU v6 lite": 918 * _T,
    "TPU v6e": 918 * _T,
    **dict.fromkeys(("NVIDIA B200", "NVIDIA B300"), 2250 * _T),
    "NVIDIA GB200": 2500 * _T,
    **dict.fromkeys(
        (
            "NVIDIA H100 80GB HBM3", "NVIDIA H100 SXM5 80GB", "NVIDIA H800", "NVIDIA H200", "NVIDIA GH200 120GB",
            "NVIDIA GH200 480GB", "NVIDIA GH200 144G HBM3e",
        ),
        989.4 * _T,
    ),
    **dict.fromkeys(("NVIDIA H100 NVL", "NVIDIA H200 NVL"), 835.5 * _T),
    **dict.fromkeys(("NVIDIA H100 PCIe", "NVIDIA H800 PCIe"), 756.5 * _T),
    "NVIDIA H20": 148 * _T,
    **dict.fromkeys(
        (
            "NVIDIA A100-SXM4-40GB", "NVIDIA A100-SXM4-80GB", "NVIDIA A100-SXM-80GB", "NVIDIA A100-PCIE-40GB",
            "NVIDIA A100-PCIE-80GB", "NVIDIA A100 80GB PCIe", "NVIDIA A800-SXM4-80GB", "NVIDIA A800 80GB PCIe",
        ),
        312 * _T,
    ),
    "NVIDIA L40S": 362 * _T,
    "NVIDIA L40": 181 * _T,
    "NVIDIA L4": 121 * _T,
    "NVIDIA A40": 149.7 * _T,
    "NVIDIA A30": 165 * _T,
    "NVIDIA A10": 125 * _T,
    "NVIDIA A10G": 70 * _T,
    "NVIDIA RTX 6000 Ada Generation": 364.2 * _T,
    "NVIDIA RTX A6000": 154.8 * _T,
    "NVIDIA GeForce RTX 5090": 209.5 * _T,
    "NVIDIA GeForce RTX 5080": 112.6 * _T,
    "NVIDIA GeForce RTX 4090": 165.2 * _T,
    "NVIDIA GeForce RTX 4080": 97.5 * _T,
    "NVIDIA GeForce RTX 3090 Ti": 80 * _T,
    "NVIDIA GeForce RTX 3090": 71 * _T,
    **dict.fromkeys(("AMD Instinct MI300X", "AMD Instinct MI325X"), 1307.4 * _T),
    "AMD Instinct MI250X": 191.5 * _T,  # one of its two dies, which are a device each
}  # fmt: skip


def peak_of(kind: str) -> float | None:
    """Operations a second of a device of this `device_kind`; None for one that is not in the table."""
    return PEAKS.get(kind)
